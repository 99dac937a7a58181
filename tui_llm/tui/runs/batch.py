"""The batch that a run trains on next: inputs x, targets y (shifted by one), and the loss of each target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text

from tui_llm.common import numbers
from tui_llm.common.display import fit, truncate, visible, visible_token
from tui_llm.facts.tokens import Token
from tui_llm.training.plan import launch
from tui_llm.training.run import batch
from tui_llm.training.run.batch import Batch, Position, Row
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import PREFERENCE, PRETRAINING, REWARD
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.loss_shade import LEVELS, legend, shade
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.lines import Lines
from tui_llm.tui.runs.run_view import RunView

WIDEST = 16  # most cells of a token: the line below the header shows it in full
MARGIN = 2  # cells for the labels x and y
BATCHES = {PRETRAINING: "the batch", PREFERENCE: "the pairs", REWARD: "the drawn answers"}
NUMBER = 3  # cells needed for a loss as a number


@dataclass(frozen=True, slots=True)
class PositionColumn:
    """One position on the screen: the labels of its two tokens, each at most `cells` cells wide."""

    position: Position
    above: str
    below: str
    cells: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """As many columns of a row as fit side by side."""

    row: Row
    columns: tuple[PositionColumn, ...]
    begins: bool  # whether it is the row's first stretch
    number: int  # index of its first position, among all that are shown


def label(token: Token) -> str:
    return truncate(visible_token(token.text[:100]) or "∅", WIDEST)


def column(position: Position) -> PositionColumn:
    above, below = label(position.input), label(position.target)
    return PositionColumn(position, above, below, max(1, cell_len(above), cell_len(below)))


def loss_text(loss: float, cells: int) -> str:
    """The loss in `cells` cells: a number if it fits, else its shade's mark."""
    if cells < NUMBER:
        return shade(loss).mark * cells
    text = f"{loss:.2f}" if cells > NUMBER and loss < 100 else f"{loss:.1f}" if loss < 10 else f"{loss:.0f}"
    return text.ljust(cells) if len(text) <= cells else shade(loss).mark * cells


class BatchLines(Lines):
    """Stretches of tokens, four lines each, and a cursor on one position."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"lines--token-loss-{level}" for level in range(LEVELS)}
    DEFAULT_CSS = """
    BatchLines > .lines--token-loss-0 { background: $success-muted; color: $text-success; }
    BatchLines > .lines--token-loss-1 { color: $text-success; }
    BatchLines > .lines--token-loss-2 { color: $text; }
    BatchLines > .lines--token-loss-3 { color: $text-warning; }
    BatchLines > .lines--token-loss-4 { background: $warning-muted; color: $text-warning; }
    BatchLines > .lines--token-loss-5 { background: $error-muted; color: $text-error; }
    """

    def __init__(self, run: str) -> None:
        super().__init__(id="batch")
        self.run = run
        self.found: Batch | None = None
        self.problem = ""
        self.loaded = False
        self.at = 0  # index of the position under the cursor, among all that are shown
        self._lines: list[tuple[Stretch | None, str]] = []

    def on_mount(self) -> None:
        self.border_title = Text.assemble("Batch of ", visible(self.run))

    def show(self, found: Batch | None, problem: str) -> None:
        self.loaded, self.problem = True, problem
        if found is not None or not problem:
            self.found = found
        self.at = max(0, min(self.at, len(self._positions) - 1))
        self.rebuild()

    @property
    def _positions(self) -> list[tuple[Row, Position]]:
        return [(row, at) for row in self.found.shown for at in row.positions] if self.found else []

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def head(self, width: int) -> list[Text]:
        muted, strong = self.style("muted"), self.style("strong")
        lines = wrapped(Text(visible(self.problem), style=self.style("bad")), width) if self.problem else []
        found = self.found
        self._lines = self._layout(width) if found else []
        if found is None:
            if self.loaded and not self.problem:
                note = "no batch yet: a run writes one at each evaluation, and when r asks for it"
                lines += wrapped(Text(note, style=muted), width)
            return lines
        step, updates = fmt.count(found.step), fmt.count(found.updates)
        state = f"before that update: after {updates}, without dropout"
        lines += wrapped(
            Text.assemble(
                (f"{BATCHES[found.objective]} of step {step}", strong), (f", seen by the model {state}", muted)
            ),
            width,
        )
        mean = self._answers_mean(found) if found.objective != PRETRAINING else Text.assemble(("mean loss ", muted), (fmt.number(found.shown_loss, 3), strong), (" of what is shown, ", muted),
                             (fmt.number(found.loss, 3), strong), (" of the whole batch", muted),
                             (f" ({fmt.count(found.rows)} × {fmt.count(found.tokens)} tokens)", muted))  # fmt: skip
        if found.left_out:
            mean.append(f"; left out: {found.left_out}", muted)
        lines += wrapped(mean, width)
        lines += wrapped(self._legend(), width)
        room = max(0, self.size.height - 5)  # leaves lines for one stretch and the position under the cursor
        return [*lines[: max(1, room)], self._under_cursor(width)] if room else []

    def _answers_mean(self, found: Batch) -> Text:
        """The loss of a step that learns from answers, which is no mean over tokens."""
        muted, strong = self.style("muted"), self.style("strong")
        return Text.assemble(("the step's loss ", muted), (fmt.number(found.loss, 3), strong), (f", {found.loss_text}; below: −ln p of each answer token{found.at_temperature}, ", muted),
                             (fmt.number(found.shown_loss, 3), strong), (" nats on average", muted))  # fmt: skip

    def _legend(self) -> Text:
        line = Text("loss ", style=self.style("muted"))
        for found in legend():
            line.append(
                f"{found.mark}\N{NO-BREAK SPACE}" + found.words.replace(" ", "\N{NO-BREAK SPACE}"),
                self.style(found.style),
            )
            line.append("  ")
        line.rstrip()
        return line

    def _under_cursor(self, width: int) -> Text:
        """The line about the position under the cursor."""
        positions = self._positions
        if not positions:
            return Text()
        row, at = positions[self.at]
        line = Text(no_wrap=True)
        line.append(f"row {row.number + 1}, position {at.number + 1}: ", self.style("muted"))
        for token, end in ((at.input, " → "), (at.target, "  ")):
            line.append(visible_token(token.text[:40]) or "∅", self.style("strong"))
            line.append(f" {token.id}{' special' if token.special else ''}{end}", self.style("muted"))
        line.append(f"loss {fmt.number(at.loss, 3)}", self.style(shade(at.loss).style))
        tempered = self.found.at_temperature if self.found else ""
        line.append(f" nats, {numbers.p_equals(at.probability)}{tempered}", self.style("muted"))
        line.truncate(width, overflow="ellipsis")
        return line

    def _layout(self, width: int) -> list[tuple[Stretch | None, str]]:
        """What each line shows: a part (`row`, `x`, `y`, `loss`) of a stretch, or nothing."""
        assert self.found is not None
        room, number = max(1, width - MARGIN), 0
        lines: list[tuple[Stretch | None, str]] = []
        for row in self.found.shown:
            columns = [self._narrowed(column(at), room) for at in row.positions]
            begins = True
            while columns or begins:
                used, taken = 0, 0
                while taken < len(columns) and (not taken or used + columns[taken].cells <= room):
                    used += columns[taken].cells + 1
                    taken += 1
                stretch = Stretch(row, tuple(columns[:taken]), begins, number)
                columns, number = columns[taken:], number + taken
                lines += [(stretch, part) for part in (("row",) if begins else ()) + ("x", "y", "loss")]
                lines.append((None, ""))
                begins = False
        return lines[:-1]

    @staticmethod
    def _narrowed(found: PositionColumn, room: int) -> PositionColumn:
        if found.cells <= room:
            return found
        return PositionColumn(found.position, truncate(found.above, room), truncate(found.below, room), room)

    def row_count(self, width: int) -> int:
        return len(self._lines)

    def row(self, index: int, width: int, selected: bool) -> Text:
        stretch, part = self._lines[index]
        line = Text(no_wrap=True)
        if stretch is None:
            return line
        if part == "row":
            of_row = stretch.row
            line.append(f"row {of_row.number + 1}", self.style("strong"))
            if of_row.label:
                value = (
                    ""
                    if of_row.value is None or "reward" in of_row.label
                    else f", reward {fmt.signed(of_row.value, 3)}"
                )
                line.append(f"  {visible(of_row.label)}{value}", self.style("strong"))
            line.append(f"  mean loss {fmt.number(of_row.loss, 3)}", self.style("muted"))
            if of_row.prompt:
                line.append(f"  after {visible(of_row.prompt)}", self.style("muted"))
            line.truncate(width, overflow="ellipsis")
            return line
        line.append({"x": "x ", "y": "y ", "loss": "  "}[part], self.style("accent"))
        for number, found in enumerate(stretch.columns, stretch.number):
            style = self.style(shade(found.position.loss).style)
            if part == "x":
                text, style = fit(found.above, found.cells), self.ground
            elif part == "y":
                text = fit(found.below, found.cells)
            else:
                text = loss_text(found.position.loss, found.cells)
            if number == self.at:
                style = style + self.style("generated") + self.style("cursor")
            line.append(text, style)
            line.append("│" if self.plain else " ", self.style("muted"))
        return line

    def selectable(self, index: int) -> bool:
        return False  # the cursor is on a position, not on a line

    # ── the cursor ───────────────────────────────────────────────────────────────────────────────────────────────

    def _go(self, at: int) -> None:
        count = len(self._positions)
        if not count:
            return
        self.at = max(0, min(at, count - 1))
        self.rebuild()
        where = [index for index, (stretch, _) in enumerate(self._lines) if stretch and self._holds(stretch)]
        height = max(1, self.size.height - len(self._head))
        if where and where[0] < self.scroll_offset.y:
            self.scroll_to(y=where[0], animate=False)
        elif where and where[-1] >= self.scroll_offset.y + height:
            self.scroll_to(y=min(where[0], where[-1] - height + 1), animate=False)

    def _holds(self, stretch: Stretch) -> bool:
        return stretch.number <= self.at < stretch.number + len(stretch.columns)

    def _vertically(self, direction: int) -> None:
        """Moves the cursor to the stretch below or above, as near to its column as possible."""
        stretches = list(dict.fromkeys(stretch.number for stretch, _ in self._lines if stretch and stretch.columns))
        now = max((index for index, first in enumerate(stretches) if first <= self.at), default=0)
        if not 0 <= now + direction < len(stretches):
            return
        ends = [*stretches[1:], len(self._positions)]
        target = now + direction
        self._go(min(stretches[target] + self.at - stretches[now], ends[target] - 1))

    def action_scroll_up(self) -> None:
        self._vertically(-1)

    def action_scroll_down(self) -> None:
        self._vertically(1)

    def action_scroll_left(self) -> None:
        self._go(self.at - 1)

    def action_scroll_right(self) -> None:
        self._go(self.at + 1)

    def action_page_up(self) -> None:
        self._another_row(-1)

    def action_page_down(self) -> None:
        self._another_row(1)

    def _another_row(self, direction: int) -> None:
        rows, first = (self.found.shown if self.found else ()), 0
        starts = [first := first + count for count in [0, *(len(row.positions) for row in rows)]][:-1]
        now = max((index for index, start in enumerate(starts) if start <= self.at), default=0)
        if starts:
            self._go(starts[max(0, min(now + direction, len(starts) - 1))])

    def action_scroll_home(self) -> None:
        self._go(0)

    def action_scroll_end(self) -> None:
        self._go(len(self._positions) - 1)


_key = CommandFactory("batch", "Batch")
KEYS = (
    _key("ask_batch", "r", "show now", "Show the batch of the run's next step", "ask"),
    _key("copy_batch", "y", "copy", "Copy the batch's tokens and losses (tab-separated)", "copy"),
    _key("close_batch", "escape,q", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


class BatchScreen(RunView):
    tour_name = "batch"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._list = BatchLines(run.name)

    def lines(self) -> Lines:
        return self._list

    def path(self) -> Path:
        return batch.path_of(self.run_shown)

    def read(self) -> Batch | None:
        return batch.newest(self.run_shown)

    def show(self, found: Batch | None, problem: str) -> None:
        self._list.show(found, problem)

    def table(self) -> Iterable[tuple[str, ...]]:
        found = self._list.found
        for row in found.table() if found else ():
            yield tuple(map(visible, row))

    def action_ask(self) -> None:
        self.files.act(
            lambda: launch.show_batch(self.run_shown) and None, "requested: it arrives after the current step"
        )
