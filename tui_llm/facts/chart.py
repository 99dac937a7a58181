"""A chart as plain data: what is drawn, exported as SVG, PNG or CSV, and copied."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChartLine:
    """Points (x, y) in the order of x, connected, or with `marks` each drawn by itself."""

    name: str
    points: tuple[tuple[float, float], ...]
    marks: bool = False


@dataclass(frozen=True, slots=True)
class ChartData:
    """A title with the unit of y, what x is, the lines, and which axes are logarithmic. `levels` are horizontal lines: a name
    and a value. `name` heads the column of a line without a name. Names are foreign text."""

    title: str
    x_title: str
    lines: tuple[ChartLine, ...]
    log_x: bool = False
    log_y: bool = False
    levels: tuple[tuple[str, float], ...] = ()
    name: str = "value"

    def shown(self) -> Iterator[tuple[float, float]]:
        """The points that the axes can show: finite, and above 0 on a logarithmic axis."""
        for line in self.lines:
            for x, y in line.points:
                if math.isfinite(x) and math.isfinite(y) and (x > 0 or not self.log_x) and (y > 0 or not self.log_y):
                    yield x, y

    def rows(self) -> Iterator[tuple[str, ...]]:
        """A table, the header first: a row for every x, a column for every line; empty where a line has no point."""
        yield self.x_title, *(line.name or self.name for line in self.lines)
        columns = [dict(line.points) for line in self.lines]
        for x in sorted({x for column in columns for x in column if math.isfinite(x)}):
            yield number(x), *(number(column[x]) if x in column else "" for column in columns)


def number(value: float) -> str:
    """The shortest decimal that reads back as `value`; a whole number without a point."""
    return str(int(value)) if math.isfinite(value) and value == int(value) and abs(value) < 2**53 else repr(value)
