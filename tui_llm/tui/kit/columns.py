"""Curves as text, in steps of an eighth of a cell: of a few lines, or of one."""

from __future__ import annotations

from collections.abc import Sequence

EIGHTHS = " ▁▂▃▄▅▆▇█"


def columns(values: Sequence[float], width: int, height: int, least: float = 0.0) -> list[str]:
    """`values`, the last ones that fit, as `height` lines of at most `width` cells, from 0 or the smallest value to the
    largest, or to `least` if all are below it. Columns are as wide as fits, up to three cells. A value at the bottom is drawn as one eighth, so that no
    column vanishes."""
    if not values or width <= 0 or height <= 0:
        return []
    cells = max(1, min(3, width // len(values)))
    shown = values[-(width // cells) :]
    low, high = min(0.0, *shown), max(least, *shown)
    span = (high - low) or 1.0
    eighths = [max(1, round((value - low) / span * height * 8)) for value in shown]
    lines = []
    for row in range(height - 1, -1, -1):
        lines.append("".join(EIGHTHS[max(0, min(8, level - 8 * row))] * cells for level in eighths))
    return lines


def spark(values: Sequence[float], low: float | None = None) -> str:
    """A sparkline: `values` as block characters, from `low`, by default the lowest, to the highest."""
    if not values:
        return ""
    low, blocks = min(values) if low is None else low, EIGHTHS[1:]
    span = max(values) - low or 1.0
    return "".join(blocks[min(len(blocks) - 1, int((value - low) / span * len(blocks)))] for value in values)
