"""The lines of the step screen: rows by their part in the gradient, tokens by theirs, and the pins before and after."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from rich.style import Style
from rich.text import Text

from tui_llm.common.display import fit, truncate, visible, visible_token
from tui_llm.common.numbers import counted, percent, signed_percent
from tui_llm.facts.token_place import TokenPlace
from tui_llm.training.run.step_rows import ReplayedStep, ReplayResult, StepPinChange, StepRow, TokenRank, place_text
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.lines import Lines

TEXT_FROM = 100  # columns from which a row's beginning is shown
TOKENS = 12  # most tokens that are listed
FILES = 3  # most files that are named above the rows
PROMPT = 24  # cells of a pin's prompt


@dataclass(frozen=True, slots=True)
class StepEntry:
    """A line: a heading, a row, a token or a pin."""

    heading: str = ""
    row: StepRow | None = None
    rank: TokenRank | None = None
    pin: StepPinChange | None = None


def file_names(replay: ReplayResult) -> dict[str, str]:
    """A short name for each file: its last part, or, where two files share that, the last two."""
    rows = replay.step.rows if replay.step else ()
    paths = {part.place.file for row in rows for part in row.parts}
    paths |= {rank.place.file for rank in replay.top if rank.place}
    last = {path: PurePath(path).name or path for path in paths}
    names = list(last.values())
    return {
        path: name if names.count(name) == 1 else "/".join(PurePath(path).parts[-2:]) for path, name in last.items()
    }


class StepLines(Lines):
    """What is known of a recomputed step."""

    def __init__(self, run: str, step: int) -> None:
        super().__init__(id="step")
        self.run, self.step = run, step
        self.replay = ReplayResult()
        self.origin = ""  # what is recomputed before the step, in words
        self.problem = ""
        self.running = True
        self.by_gradient = False  # the order of rows and tokens
        self._entries: list[StepEntry] = []
        self._names: dict[str, str] = {}

    def show(self) -> None:
        """Shows what `replay`, `origin`, `problem` and `running` say now."""
        self.border_title = Text.assemble(f"Step {self.step:,} of ", visible(self.run))
        chosen = self.chosen
        self._entries, self._names = self._made(), file_names(self.replay)
        same = [at for at, entry in enumerate(self._entries) if chosen is not None and entry == chosen]
        if same and self.cursor not in (None, same[0]) and self._first_row() != self.cursor:
            self.cursor = same[0]
        self.rebuild()
        if self.cursor is None and self._entries:
            self._place_cursor(0, quiet=True)

    @property
    def chosen(self) -> StepEntry | None:
        """The line under the cursor."""
        return self._entries[self.cursor] if self.cursor is not None and self.cursor < len(self._entries) else None

    def _first_row(self) -> int:
        return next((at for at, entry in enumerate(self._entries) if entry.row is not None), 0)

    def _made(self) -> list[StepEntry]:
        replay = self.replay
        if replay.step is None:
            return []
        by = "the gradient’s norm ‖g‖" if self.by_gradient and replay.complete else "the loss"
        rows = replay.ordered(by_gradient=self.by_gradient)
        tokens = replay.tokens(TOKENS, by_gradient=self.by_gradient)
        lines = [StepEntry(f"Rows by their part in {by}"), *(StepEntry(row=row) for row in rows)]
        if tokens:
            lines += [StepEntry(f"Tokens by their part in {by}"), *(StepEntry(rank=one) for one in tokens)]
        if replay.step.pins:
            lines += [StepEntry("What the step changed in the pins"), *(StepEntry(pin=one) for one in replay.step.pins)]
        return lines

    # ── the head ─────────────────────────────────────────────────────────────────────────────────────────────────

    def head(self, width: int) -> list[Text]:
        muted, strong = self.style("muted"), self.style("strong")
        step, lines = self.replay.step, []
        if step is not None:
            lines += wrapped(
                Text.assemble(
                    ("loss ", muted), (fmt.number(step.loss, 4), strong), ("  gradient norm ", muted),
                    (fmt.number(step.grad_norm, 4), strong), (f"  learning rate {step.lr:.3g}", muted),
                ), width,
            )  # fmt: skip
            found = "good" if step.matches else "bad" if step.logged else "muted"
            lines += wrapped(Text(visible(step.match_line), self.style(found)), width)
            lines += wrapped(self._cause(step), width)
        if self.running:
            lines += wrapped(Text(f"{visible(self.replay.progress) or 'starting'} …", muted), width)
            if step is None and self.origin:
                lines += wrapped(Text(self.origin, muted), width)
        if self.problem:
            lines += wrapped(Text(visible(self.problem), self.style("bad")), width)
        return lines[: max(1, self.size.height - 4)]

    def _cause(self, step: ReplayedStep) -> Text:
        """What made the loss and the gradient: the row with the largest part in each, and the files' parts."""
        muted, strong, replay = self.style("muted"), self.style("strong"), self.replay
        line = Text.assemble(("what made this: ", muted))
        row = next(iter(replay.ordered()), None)
        if row is None:
            return Text()
        line.append(f"row {row.number + 1}", strong)
        line.append(f" has {percent(step.loss_share(row))} of the loss, ", muted)
        line.append(self.places(row) or f"place unknown: {visible(step.unplaced)}", strong if row.parts else muted)
        if replay.complete and replay.norm > 0:
            other = replay.ordered(by_gradient=True)[0]
            line.append(f"; row {other.number + 1}", strong)
            line.append(f" has {signed_percent(replay.shares[other.number].share / replay.norm)} of ‖g‖", muted)
            line.append("" if other is row else f", {self.places(other)}", muted)
        files = replay.by_file()
        if len(files) > 1:
            line.append("; by file: ", muted)
            for at, one in enumerate(files[:FILES]):
                line.append((", " if at else "") + visible(self._names.get(one.file, one.file)), strong)
                norm = "" if one.norm is None else f", {signed_percent(one.norm)} of ‖g‖"
                line.append(f" {percent(one.loss)} of the loss{norm} ({counted(one.rows, 'row')})", muted)
        if step.dropout:
            line.append("; parts are without the step’s dropout", muted)
        return line

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def row_count(self, width: int) -> int:
        return len(self._entries)

    def selectable(self, index: int) -> bool:
        if not 0 <= index < len(self._entries):
            return False
        return self._entries[index].row is not None or self._entries[index].rank is not None

    def place(self, place: TokenPlace | None) -> str:
        return visible(place_text(place, self._names.get(place.file, place.file))) if place else ""

    def places(self, row: StepRow) -> str:
        """Where the row's tokens come from: one place for each file."""
        return " + ".join(self.place(part.place) for part in row.parts)

    def row(self, index: int, width: int, selected: bool) -> Text:
        entry = self._entries[index]
        if entry.row is not None:
            line = self._row(entry.row, width)
        elif entry.rank is not None:
            line = self._token(entry.rank)
        elif entry.pin is not None:
            line = self._pin(entry.pin)
        else:
            line = Text(entry.heading, self.style("accent"), no_wrap=True)
        line.truncate(width, overflow="ellipsis")
        return line

    def _parts(self, loss: float, norm: float | None) -> tuple[str, str]:
        """The part in the loss and in the gradient's norm."""
        step, whole = self.replay.step, self.replay.norm
        assert step is not None
        of_loss = percent(loss / step.total) if step.total > 0 and math.isfinite(loss) else "–"
        return of_loss, signed_percent(norm / whole) if norm is not None and whole > 0 else ""

    def _row(self, row: StepRow, width: int) -> Text:
        muted, share = self.style("muted"), self.replay.shares.get(row.number)
        of_loss, of_norm = self._parts(row.total, share.share if share else None)
        line = Text(no_wrap=True)
        line.append(f" {row.number + 1:>4} ", self.style("strong"))
        line.append(f" loss {fmt.number(row.loss, 3):>6} {of_loss:>7}", muted)
        line.append(f"  ‖g‖ {of_norm:>8}  ", self.style("strong") if of_norm else muted)
        line.append(self.places(row) or "place unknown", self.ground)
        if width >= TEXT_FROM:
            text = "".join(token.text for token in row.tokens[:60])
            line.append(f"  {visible(text)}", muted)
        return line

    def _token(self, rank: TokenRank) -> Text:
        assert self.replay.step is not None
        row, muted = self.replay.step.rows[rank.row], self.style("muted")
        share, loss = self.replay.shares.get(rank.row), row.losses[rank.position]
        of_loss, of_norm = self._parts(loss, share.tokens[rank.position] if share else None)
        x, y = (
            truncate(visible_token(token.text[:40]) or "∅", 10)
            for token in row.tokens[rank.position : rank.position + 2]
        )
        line = Text(f" {rank.row + 1:>4} ", muted, no_wrap=True)
        line.append(f" loss {fmt.number(loss, 3):>6} {of_loss:>7}  ‖g‖ {of_norm:>8}  ", muted)
        line.append(fit(f"{x} → {y}", 18), self.style("strong"))
        line.append(f" {self.place(rank.place)}", self.ground)
        return line

    def _pin(self, change: StepPinChange) -> Text:
        muted = self.style("muted")
        target = change.pin.target if change.pin.target is not None else change.token.text if change.token else ""
        line = Text(" ", no_wrap=True)
        line.append(fit(truncate(visible(change.pin.prompt), PROMPT), PROMPT), self.ground)
        line.append(f" {fit(truncate(visible_token(target), 12), 12)}", self.style("strong"))
        if change.before is None and change.problem:
            line.append(f" {visible(change.problem)}", self.style("bad"))
            return line
        for name, pair, digits in (
            ("p", (change.before, change.after), 5),
            ("loss", (change.loss_before, change.loss_after), 4),
        ):
            before, after = ("–" if value is None else f"{value:.{digits}f}" for value in pair)
            line.append(f"  {name} {before} → ", muted)
            line.append(after, self._direction(pair, up_is_good=name == "p"))
        return line

    def _direction(self, pair: tuple[float | None, float | None], *, up_is_good: bool) -> Style:
        before, after = pair
        if before is None or after is None or before == after:
            return self.style("muted")
        return self.style("good" if (after > before) is up_is_good else "bad")

    def table(self) -> Iterable[tuple[str, ...]]:
        """The rows for copying, the header first."""
        yield "row", "file", "offset", "loss", "loss_share", "gradient_norm", "gradient_share", "text"
        step = self.replay.step
        for row in self.replay.ordered(by_gradient=self.by_gradient):
            share, place = self.replay.shares.get(row.number), row.place
            yield (
                str(row.number), place.file if place else "", "" if place is None or place.offset is None else str(place.offset),
                repr(row.loss), repr(step.loss_share(row)) if step else "", repr(share.norm) if share else "",
                repr(share.share) if share else "", "".join(token.text for token in row.tokens),
            )  # fmt: skip
