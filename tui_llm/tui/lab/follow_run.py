"""Following the watched run: each new checkpoint is opened, and all panes show its reading."""

from __future__ import annotations

from tui_llm.common.paths import run_model
from tui_llm.tui.runs.pane import TrainingPane
from tui_llm.tui.state.context import LabContext


class FollowRunController:
    def __init__(self, context: LabContext, pane: TrainingPane) -> None:
        self.context, self.pane = context, pane
        self.following = False
        self._opened = ""  # the run that was opened to be followed

    def toggle(self) -> None:
        if not self.following and self.pane.run_watched is None:
            self.context.notify("no run to follow; 4 n starts one")
            return
        self.following, self._opened = not self.following, ""
        self.open_newest()
        self.context.show_top()

    def stop(self) -> None:
        self.following = False

    def open_newest(self) -> None:
        """Opens the watched run's newest checkpoint, if the user follows the run and it has one."""
        run, snapshot = self.pane.run_watched, self.pane.snapshot
        if not self.following or run is None or snapshot is None or snapshot.checkpoint is None:
            return
        if self._opened == run.name and self._is_open(run.name):
            self.context.client.refresh()  # keeps the generated tokens
        else:
            self._opened = run.name
            self.context.stop_generation()
            self.context.client.open(run_model(run.name))

    def _is_open(self, run: str) -> bool:
        weights = self.context.weights
        return weights is not None and weights.step is not None and weights.name == run

    @property
    def words(self) -> str:
        """What the top line says about it, after the model's name and step: foreign text."""
        run = self.pane.run_watched
        if not self.following or run is None:
            return ""
        return ", following" if self._is_open(run.name) else f", waiting for a checkpoint of {run.name}"
