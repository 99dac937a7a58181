"""A histogram of many draws: bars of counts, each with a mark at the expected count."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from tui_llm.common import numbers
from tui_llm.common.display import fit, visible, visible_token
from tui_llm.instruments.draws.question import Bin, Histogram
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.answer_lines import AnswerLines

FAR = 3.0  # standard errors; a fair count is further off once in 370 cases


class HistogramLines(AnswerLines):
    def __init__(self) -> None:
        super().__init__(id="histogram")
        self.histogram: Histogram | None = None
        self._most = 1.0

    def show(self, histogram: Histogram) -> None:
        self.histogram = histogram
        bins = [one for _, one in histogram.rows] + ([histogram.rest] if histogram.rest else [])
        self._most = max((max(one.count, one.expected + one.deviation) for one in bins), default=1.0) or 1.0
        self.rebuild()

    def head(self, width: int) -> list[Text]:
        found = self.histogram
        if found is None:
            return self.awaited(width)
        strong, muted = self.style("strong"), self.style("muted")
        line = (
            Text()
            .append(fmt.count(found.count), strong)
            .append(" draws at ")
            .append(fmt.sampler(found.sampler), strong)
        )
        line.append(
            f", seed {found.seed} · {fmt.count(found.kept)} token{'' if found.kept == 1 else 's'} can be drawn", muted
        )
        lines = wrapped(line, width)[:2]
        if found.chi_squared is not None and found.chance is not None and self.size.height > 8:
            fair = Text("χ² = ").append(fmt.number(found.chi_squared, 1), strong)
            fair.append(
                f" on {found.freedom} degree{'s' * (found.freedom != 1)} of freedom: fair draws differ as much or more in "
            )
            fair.append(numbers.precise_percent(found.chance), strong).append(" of cases")
            lines += wrapped(fair, width)[:2]
        if self.size.height > 8:
            explain = "expected n·p ± √(n·p·(1 − p)) · off: in standard errors, within ±2 in 95 % of cases · ┃ expected"
            lines += wrapped(Text(explain, style=muted), width)[:2]
        lines.append(Text(self._cells(width, "token", "drawn", "expected", "off"), style=muted, no_wrap=True))
        return lines

    def _cells(self, width: int, token: str, drawn: str, expected: str, off: str) -> str:
        token = fit(token, max(1, min(16, width - 10)))
        return f"{token} {drawn:>8} {expected:>16} {off:>6} " if width >= 56 else f"{token} {drawn:>8} "

    def row_count(self, width: int) -> int:
        found = self.histogram
        return 0 if found is None else len(found.rows) + (found.rest is not None)

    def selectable(self, index: int) -> bool:
        return self.histogram is not None and 0 <= index < self.row_count(0)

    def _row(self, index: int) -> tuple[str, Bin] | None:
        found = self.histogram
        if found is None or index >= self.row_count(0):
            return None
        if index < len(found.rows):
            candidate, one = found.rows[index]
            return visible_token(candidate.text), one
        assert found.rest is not None
        return f"({fmt.count(found.rest_kept)} others)", found.rest

    def row(self, index: int, width: int, selected: bool) -> Text:
        row = self._row(index)
        if row is None:
            return Text()
        label, one = row
        off = f"{'+' if one.score > 0 else ''}{fmt.number(one.score, 1)}{'!' if abs(one.score) >= FAR else ''}"
        # More than two significant digits of the error would mean nothing.
        digits = 0 if one.deviation >= 10 else 1
        expected = f"{fmt.number(one.expected, digits)} ± {fmt.number(one.deviation, digits)}"
        text = Text(self._cells(width, label, fmt.count(one.count), expected, off), no_wrap=True)
        room = width - text.cell_len
        if room > 2:
            bar = list(fmt.bar(one.count / self._most, room))
            at = min(room - 1, int(one.expected / self._most * room))
            text.append("".join(bar[:at]), self.style("bar")).append("┃", self.style("accent"))
            text.append("".join(bar[at + 1 :]), self.style("bar"))
        return text

    def table(self) -> Iterable[tuple[str, ...]]:
        found = self.histogram
        if found is None:
            return
        yield "id", "bytes", "text", "probability", "drawn", "expected", "standard error", "off"
        for candidate, one in found.rows:
            yield (
                str(candidate.id), candidate.bytes.hex(), visible(candidate.text), repr(candidate.probability),
                str(one.count), repr(one.expected), repr(one.deviation), repr(one.score),
            )  # fmt: skip
        rest = found.rest
        if rest is not None:
            share = repr(rest.expected / found.count)
            yield "", "", f"{found.rest_kept} others", share, str(rest.count), repr(rest.expected), repr(rest.deviation), repr(rest.score)  # fmt: skip
