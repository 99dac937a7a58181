"""The lines of the screen of a foreign folder: a row per checkpoint, and the logit lens of one of them below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from tui_llm.common.display import truncate, visible, visible_token
from tui_llm.common.numbers import file_size, percent
from tui_llm.facts.pin import Pin
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.training.run.foreign.foreign_table import ForeignStep, ForeignTable
from tui_llm.training.run.foreign.lens_readings import LensStepRow
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.lines import Lines

NAME, TOKEN, PREDICTION = 22, 14, 26  # most cells of a checkpoint's name, of a token; cells of a prediction
NOT_READ = "r reads the pins, the logit lens, the heads and a sample of each checkpoint"


def prediction(step: ForeignStep, pin: Pin | None) -> str:
    """What the checkpoint predicts for `pin`: the target's p and loss, or the likeliest token and its p."""
    reading = step.of(pin) if pin is not None else None
    if reading is None:
        return "can't be read" if step.read and step.problems else "not read yet"
    if not reading.candidates:
        return visible(reading.problem)
    if reading.probability is not None:
        return f"p {percent(reading.probability)}  loss {reading.loss:.4f}"
    first = reading.candidates[0]
    return f"{truncate(visible_token(first.text), TOKEN)} {percent(first.probability)}"


def induction(step: ForeignStep) -> str:
    """The head with the highest induction score."""
    head = step.induction
    return "" if head is None or head.induction is None else f"{head.name} {head.induction:.2f}"


def _padded(text: str, width: int) -> str:
    return text + " " * max(0, width - Text(text).cell_len)


class CheckpointLines(Lines):
    """The checkpoints; the cursor is on one of them."""

    def __init__(self) -> None:
        super().__init__(id="foreign-steps")
        self.shown: ForeignTable | None = None
        self.pin: Pin | None = None

    def show(self, table: ForeignTable, pin: Pin | None) -> None:
        self.shown, self.pin = table, pin
        if self.cursor is None and table.steps:
            self.cursor = len(table.steps) - 1
        self.rebuild()

    @property
    def _name_cells(self) -> int:
        """Cells of the column of names."""
        steps = self.shown.steps if self.shown else ()
        return max(10, min(NAME, max((Text(visible(one.name[:NAME])).cell_len for one in steps), default=0)))

    @property
    def chosen(self) -> ForeignStep | None:
        """The checkpoint under the cursor."""
        steps = self.shown.steps if self.shown else ()
        return steps[self.cursor] if self.cursor is not None and 0 <= self.cursor < len(steps) else None

    def head(self, width: int) -> Sequence[Text]:
        if self.shown is None:
            return [Text("reading the folder …", style=self.style("muted"))]
        lines = []
        for note in self.shown.notes:
            lines += wrapped(Text(f"! {visible(note)}", style=self.style("accent")), width)
        names = f"{'step':>9}  {'checkpoint':<{self._name_cells}}  {'same as':>9}  {'prediction':<{PREDICTION}}  {'induction':>10}  {'weights':>8}"
        heading = Text(names, style=self.style("muted"), no_wrap=True)
        heading.truncate(width)
        return [*lines, heading]

    def row_count(self, width: int) -> int:
        return len(self.shown.steps) if self.shown else 0

    def selectable(self, index: int) -> bool:
        return self.shown is not None and 0 <= index < len(self.shown.steps)

    def row(self, index: int, width: int, selected: bool) -> Text:
        assert self.shown is not None
        step = self.shown.steps[index]
        same = "" if step.same is None else f"= {step.same:,}"
        line = Text(no_wrap=True)
        line.append(f"{step.step:>9,}  ", self.style("strong"))
        line.append(_padded(truncate(visible(step.name), self._name_cells), self._name_cells))
        line.append(f"  {same:>9}", self.style("accent"))
        line.append(
            f"  {_padded(prediction(step, self.pin), PREDICTION)}  {induction(step):>10}  {file_size(step.size):>8}"
        )
        line.truncate(width)
        return line

    def cursor_moved(self) -> None:
        self.screen.query_one(LensLines).show(self.chosen, self.pin)


class LensLines(Lines):
    """The logit lens of one pin at one checkpoint, the last layer first."""

    def __init__(self) -> None:
        super().__init__(id="foreign-lens")
        self.rows: tuple[LensStepRow, ...] = ()
        self.title, self.note = "", ""
        self.can_focus = False

    def show(self, step: ForeignStep | None, pin: Pin | None) -> None:
        lens = step.lens(pin) if step is not None and pin is not None else None
        self.rows = lens.rows[::-1] if lens else ()
        where = f" at step {step.step:,}" if step else ""
        after = f" after {truncate(visible(pin.prompt), 32)}" if pin else ""
        target = f", p and rank of {truncate(visible_token(token_text(lens.target)), TOKEN)}" if lens else ""
        self.title = f"Logit lens{after}{where}{target}"
        self.note = "" if lens else _why(step)
        self.border_title = Text(self.title)
        self.rebuild()

    def head(self, width: int) -> Sequence[Text]:
        return wrapped(Text(self.note, style=self.style("muted")), width) if self.note else ()

    def row_count(self, width: int) -> int:
        return len(self.rows)

    def row(self, index: int, width: int, selected: bool) -> Text:
        row = self.rows[index]
        layer = "embedding" if row.layer is None else f"layer {row.layer}"
        line = Text(no_wrap=True)
        line.append(f"{layer:>9}  ", self.style("muted"))
        line.append(f"p {percent(row.probability):>8}  rank {row.rank:>7,}   likeliest ")
        line.append(truncate(visible_token(row.text), TOKEN), self.style("strong"))
        line.append(f" {percent(row.likeliest)}")
        line.truncate(width)
        return line


def _why(step: ForeignStep | None) -> str:
    if step is None or not step.read:
        return NOT_READ
    return visible("; ".join(step.problems)) if step.problems else "this pin was not read here: r reads it"


def table_rows(table: ForeignTable, pin: Pin | None) -> Iterable[tuple[str, ...]]:
    """The checkpoints as rows of cells, the header first."""
    yield "step", "checkpoint", "bytes", "same_as", "prediction", "induction"
    for one in table.steps:
        same = "" if one.same is None else str(one.same)
        yield str(one.step), visible(one.name), str(one.size), same, prediction(one, pin), induction(one)
