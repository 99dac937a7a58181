"""The tokens of one row of a recomputed step, each with its loss."""

from __future__ import annotations

import math

from textual.app import ComposeResult
from textual.screen import Screen

from tui_llm.common.display import visible
from tui_llm.training.run.batch import Batch, Position, Row
from tui_llm.training.run.step_rows import ReplayedStep, StepRow
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.over import copy_rows
from tui_llm.tui.kit.widgets.bars import KeyBar
from tui_llm.tui.runs.batch import BatchLines

_key = CommandFactory("step_row", "A step's row")
KEYS = (
    _key("copy_step_row", "y", "copy", "Copy the row's tokens and losses (tab-separated)", "copy"),
    _key("close_step_row", "escape,q", "back", "Back to the step", "close", importance=WAY_OUT),
)  # fmt: skip


class StepRowScreen(BaseScreen, Screen[None]):
    """The tokens of one row of a recomputed step, each with its loss; the cursor begins at position `at`."""

    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    StepRowScreen Lines { height: 1fr; border: round $primary; background: $background; padding: 0 1; }
    """

    def __init__(self, run: str, step: ReplayedStep, row: StepRow, places: str, at: int = 0) -> None:
        super().__init__()
        self.files = FileActions(self, lambda: None)
        self._list, self._at = BatchLines(run), at
        self._batch = as_batch(step, row, places)

    def compose(self) -> ComposeResult:
        yield self._list
        yield KeyBar()

    def on_mount(self) -> None:
        self._list.focus()
        self.query_one(KeyBar).show_commands(KEYS)
        self._list.at = self._at
        self._list.show(self._batch, "")

    def action_copy(self) -> None:
        self.files.notify(copy_rows(self.app, [tuple(map(visible, row)) for row in self._batch.table()]))

    def action_close(self) -> None:
        self.dismiss(None)


def as_batch(step: ReplayedStep, row: StepRow, places: str) -> Batch:
    """The batch of a recomputed step, of which this row is shown."""
    positions = tuple(
        Position(number, x, y, loss, math.exp(-loss))
        for number, (x, y, loss) in enumerate(zip(row.tokens, row.tokens[1:], row.losses, strict=False))
    )
    shown = Row(row.number, positions, row.loss, places)
    return Batch(step.step, step.step - 1, step.loss, row.loss, len(step.rows), len(row.losses), (shown,))
