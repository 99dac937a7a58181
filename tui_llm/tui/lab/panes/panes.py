"""All five panes, and which of them is current."""

from __future__ import annotations

from collections.abc import Iterable

from textual.widget import Widget

from tui_llm.tui.kit.over import Row
from tui_llm.tui.lab.panes.generate import GeneratePane
from tui_llm.tui.lab.panes.logits import LogitsPane
from tui_llm.tui.lab.panes.loss import LossPane
from tui_llm.tui.lab.panes.tokens import TokensPane
from tui_llm.tui.runs.pane import TrainingPane
from tui_llm.tui.state.lab import Lab


class LabPanes:
    def __init__(self, lab: Lab) -> None:
        self.tokens = TokensPane(lab)
        self.logits = LogitsPane(lab)
        self.loss = LossPane(lab)
        self.training = TrainingPane()
        self.generate = GeneratePane(lab)
        self.of_reading = (self.tokens, self.logits, self.loss, self.generate)
        self.by_name = {pane.id: pane for pane in (self.tokens, self.logits, self.loss, self.training, self.generate)}
        self.current = "logits"  # the name of the pane that has, or last had, the focus

    def __getitem__(self, name: str) -> Widget:
        return self.by_name[name]

    def table(self) -> Iterable[Row]:
        """The current pane as rows of cells for copying, the header first."""
        return self.by_name[self.current].table()
