"""A full screen with a table whose lines add up: numbers for target, rival and difference, and a bar around zero."""

from __future__ import annotations

from rich.text import Text

from tui_llm.common.display import fit, token_label, truncate
from tui_llm.facts.tokens import Token
from tui_llm.instruments.why.sums import LogitSum, SumLine
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.full import FullScreen

NAME, NUMBER, LEAST_BAR, MOST_BAR = 19, 10, 9, 61  # cells


def bar_around_zero(fraction: float, half: int) -> tuple[str, str]:
    """The cells to the left and to the right of zero, for −1 to 1. To the left a cell is full or half: there is no finer
    block that grows from the right."""
    if fraction >= 0:
        return " " * half, fmt.bar(fraction, half).rstrip()
    halves = min(2 * half, round(-fraction * half * 2))
    return ("▐" * (halves % 2) + "█" * (halves // 2)).rjust(half), ""


class SumScreen(FullScreen):
    """A subclass makes `content` of these lines."""

    def bar_cells(self, width: int, most: int = MOST_BAR) -> int:
        """An odd number of cells, with zero in the middle; 0 if there is no room."""
        room = min(most, width - NAME - 3 * (NUMBER + 1) - 2)
        return room - (room % 2 == 0) if room >= LEAST_BAR else 0

    def column_names(self, first: str, target: Token, rival: Token, bar: int) -> Text:
        names = [*(truncate(token_label(token.text), NUMBER) for token in (target, rival)), "difference"]
        line = Text(fit(first, NAME), self.style("muted"), no_wrap=True)
        line.append("".join(" " * (NUMBER + 1 - Text(name).cell_len) + name for name in names))
        if bar:
            line.append("  " + "−".ljust(bar // 2) + "0" + "+".rjust(bar // 2))
        return line

    def total_line(self, found: LogitSum) -> Text:
        return self._numbers(found, found.total, found.total.name, total=True)

    def sum_line(self, found: LogitSum, at: int, bar: int, most: int) -> Text:
        """Line number `at`; `most` is the difference of a full bar, in units."""
        line = found.lines[at]
        made = self._numbers(found, line, ("▸" if at == self.listing.cursor else " ") + line.name)
        if bar:
            left, right = bar_around_zero(line.difference / max(1, most), bar // 2)
            made.append("  ").append(left, self.style("bad")).append("│", self.style("muted"))
            made.append(right.ljust(bar // 2), self.style("good"))
        return made

    def _numbers(self, found: LogitSum, line: SumLine, name: str, total: bool = False) -> Text:
        strong = self.style("strong")
        made = Text(no_wrap=True).append(fit(name, NAME), strong if total else self.style("accent"))
        for units in (line.value, line.rival):
            made.append(found.text(units).rjust(NUMBER + 1), strong if total else None)
        return made.append(found.signed(line.difference).rjust(NUMBER + 1), strong)
