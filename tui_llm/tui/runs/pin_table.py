"""The candidates of a pinned prompt at one evaluation, with its target's loss; or what changed between two
evaluations."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from tui_llm.common import numbers
from tui_llm.common.display import fit, visible, visible_token
from tui_llm.training.run.pin_readings import PinReading, ProbabilityChange, difference
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.lines import Lines

Saved = tuple[int, PinReading]  # (step, the reading of that step)
UNKNOWN = "?"


def points(change: ProbabilityChange) -> str:
    """A change in percentage points; `≥` or `≤` if one of the two probabilities is known only to be small."""
    if not change.exact and change.change == 0:
        return UNKNOWN
    sign = "" if change.exact else "≥" if change.change > 0 else "≤"
    return sign + fmt.signed(100 * change.change)


def _share(known: float | None, most: float) -> str:
    return numbers.at_most(most) if known is None else numbers.percent(known)


class PinTable(Lines, can_focus=False):
    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.here: Saved | None = None
        self.marked: Saved | None = None
        self.changes: list[ProbabilityChange] = []

    def show(self, here: Saved | None, marked: Saved | None) -> None:
        """Shows the candidates at `here`; with `marked`, what changed from there to `here`."""
        if (here, marked) == (self.here, self.marked):
            return
        self.here, self.marked = here, marked
        self.changes = difference(marked[1], here[1]) if here and marked else []
        self.rebuild()

    def wanted_height(self) -> int:
        return 1 + max(1, len(self._rows_shown()))

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def head(self, width: int) -> list[Text]:
        if self.here is None:
            return []
        muted = self.style("muted")
        problem = self.here[1].problem
        lines = [line.copy() for line in wrapped(Text(f"! {visible(problem)}", self.style("bad")), width)] if problem else []  # fmt: skip
        if not self.here[1].candidates:
            return lines
        room = self._room(width)
        if self.marked is not None:
            steps = [f"step {fmt.count(step)}" for step, _ in (self.marked, self.here)]
            lines.append(Text(f"  {fit('token', room)} {steps[0]:>14} {steps[1]:>14} {'points':>9}", muted))
        else:
            lines.append(Text(f"  {fit('token', room)} {'id':>7} {'raw p':>9}", muted))
        for line in lines:
            line.no_wrap = True
            line.truncate(width)
        return lines

    def _room(self, width: int) -> int:
        """The width of a token, in cells."""
        return max(4, min(24, width - (44 if self.marked is not None else 30)))

    def _rows_shown(self) -> list[object]:
        if self.here is None:
            return []
        if self.marked is not None:
            return list(self.changes)
        reading = self.here[1]
        return [*reading.candidates, *([None] if reading.tokens else []), *reading.tokens]

    def row_count(self, width: int) -> int:
        return len(self._rows_shown())

    def row(self, index: int, width: int, selected: bool) -> Text:
        assert self.here is not None
        reading = self.here[1]
        if self.marked is not None:
            line = self._change(self.changes[index], width)
        elif index < len(reading.candidates):
            line = self._candidate(index, width)
        elif index == len(reading.candidates):
            line = Text(f"  {fit('target', self._room(width))} {'id':>7} {'raw p':>9} {'loss':>8} {'rank':>8}", self.style("muted"))  # fmt: skip
        else:
            token = reading.tokens[index - len(reading.candidates) - 1]
            line = Text().append("◆ ", self.style("accent"))
            line.append(fit(visible_token(token.text), self._room(width)), self.style("strong"))
            line.append(f" {token.id:>7}", self.style("muted"))
            line.append(f" {numbers.percent(token.probability):>9} {fmt.number(token.loss, 3):>8} {fmt.count(token.rank):>8}")  # fmt: skip
        line.no_wrap = True
        line.truncate(width)
        return line

    def _is_target(self, id: int) -> bool:
        assert self.here is not None
        tokens = self.here[1].tokens
        return bool(tokens) and tokens[0].id == id

    def _candidate(self, index: int, width: int) -> Text:
        assert self.here is not None
        candidate, room = self.here[1].candidates[index], self._room(width)
        line = Text().append("◆ " if self._is_target(candidate.id) else "  ", self.style("accent"))
        line.append(fit(visible_token(candidate.text), room), self.style("strong"))
        line.append(f" {candidate.id:>7}", self.style("muted"))
        line.append(f" {numbers.percent(candidate.probability):>9} ")
        return line.append(fmt.bar(candidate.probability, min(60, width - room - 21)), self.style("bar"))

    def _change(self, change: ProbabilityChange, width: int) -> Text:
        room = self._room(width)
        line = Text().append("◆ " if self._is_target(change.id) else "  ", self.style("accent"))
        line.append(fit(visible_token(change.text), room), self.style("strong"))
        line.append(f" {_share(change.before, change.before_most):>14} {_share(change.after, change.after_most):>14} ")
        style = self.style("good" if change.change > 0 else "bad" if change.change < 0 else "muted")
        line.append(f"{points(change):>9} ", style)
        return line.append(fmt.bar(abs(change.change), min(40, width - room - 43)), style)

    # ── copying ──────────────────────────────────────────────────────────────────────────────────────────────────

    def table(self) -> Iterable[tuple[str, ...]]:
        """The table as rows of cells, the header first."""
        if self.here is None:
            return
        step, reading = self.here
        if self.marked is not None:
            yield "id", "bytes", "text", f"probability_at_{self.marked[0]}", f"probability_at_{step}", "change"
            for c in self.changes:
                known = ["" if p is None else repr(p) for p in (c.before, c.after)]
                yield str(c.id), c.bytes.hex(), visible(c.text), *known, repr(c.change) if c.exact else ""
            return
        yield "step", "what", "id", "bytes", "text", "raw_probability", "loss", "rank"
        for place, candidate in enumerate(reading.candidates, 1):
            cells = str(candidate.id), candidate.bytes.hex(), visible(candidate.text), repr(candidate.probability)
            yield str(step), "candidate", *cells, "", str(place)
        for token in reading.tokens:
            cells = str(token.id), token.bytes.hex(), visible(token.text), repr(token.probability)
            yield str(step), "target", *cells, repr(token.loss), str(token.rank)
