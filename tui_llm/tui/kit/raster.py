"""Lines as braille characters: a cell has 2 × 4 dots, and the colour of the line that was drawn last.

Made for many lines at once: a curve costs a few operations a column, so that a page of charts is drawn in milliseconds,
where plotext needs a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of the dot in column x, row y of a cell

Cell = tuple[str, int]
"""A character and the number of its colour; −1 for the background."""


class Raster:
    """`width` × `height` cells. Coordinates are shares of the area: (0, 0) is the bottom left corner, (1, 1) the top right."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._dots = [[0] * width for _ in range(height)]
        self._colours = [[-1] * width for _ in range(height)]
        self._signs: dict[tuple[int, int], Cell] = {}

    def line(self, points: Iterable[tuple[float, float]], colour: int) -> None:
        """Connects the points, which are in the order of x; NaN breaks the line. What lies outside is left out."""
        spans: dict[int, tuple[int, int]] = {}  # column of dots → its lowest and highest dot
        wide, high = 2 * self.width - 1, 4 * self.height - 1
        before: tuple[int, float] | None = None
        for x, y in points:
            if not (math.isfinite(x) and math.isfinite(y)):
                before = None
                continue
            column, row = round(x * wide), y * high
            if before is not None and column > before[0] + 1:
                slope = (row - before[1]) / (column - before[0])
                for between in range(max(0, before[0] + 1), min(column, wide + 1)):
                    _widen(spans, between, before[1] + slope * (between - before[0] - 0.5))
                    _widen(spans, between, before[1] + slope * (between - before[0] + 0.5))
            elif before is not None and column == before[0] + 1 and 0 <= column <= wide:
                _widen(spans, column, (before[1] + row) / 2)
            if 0 <= column <= wide:
                _widen(spans, column, row)
            before = column, row
        for column, (low, top) in spans.items():
            for dot in range(max(0, low), min(top, high) + 1):
                self._dot(column, high - dot, colour)

    def _dot(self, column: int, row: int, colour: int) -> None:
        x, y = column // 2, row // 4
        self._dots[y][x] |= _BITS[column % 2][row % 4]
        self._colours[y][x] = colour

    def sign(self, x: float, y: float, char: str, colour: int) -> None:
        """Puts a character over the dots of the cell at (x, y), if that is inside."""
        if math.isfinite(x) and math.isfinite(y) and 0 <= x <= 1 and 0 <= y <= 1:
            at = round(x * (self.width - 1)), round((1 - y) * (self.height - 1))
            self._signs[at] = char, colour

    def rows(self) -> list[list[Cell]]:
        """The cells of each row, from top to bottom."""
        made = [
            [(chr(0x2800 + dots) if dots else " ", colour) for dots, colour in zip(*row, strict=True)]
            for row in zip(self._dots, self._colours, strict=True)
        ]
        for (x, y), cell in self._signs.items():
            made[y][x] = cell
        return made


def _widen(spans: dict[int, tuple[int, int]], column: int, row: float) -> None:
    dot = math.floor(row + 0.5)
    low, high = spans.get(column, (dot, dot))
    spans[column] = min(low, dot), max(high, dot)
