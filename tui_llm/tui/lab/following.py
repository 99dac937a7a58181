"""Following the watched run: each new checkpoint is opened, and all panes show its reading."""

from __future__ import annotations

from textual import on

from tui_llm.common.paths import run_model
from tui_llm.tui.runs.pane import TrainingPane
from tui_llm.tui.state.base import LabBase
from tui_llm.tui.state.messages import CheckpointSaved, RunWatched


class Following(LabBase):
    following = False
    _followed = ""  # the run that was opened to be followed

    def action_follow(self) -> None:
        pane = self.query_one(TrainingPane)
        if not self.following and pane.watcher.run_watched is None:
            self.say("no run to follow; 4 n starts one")
            return
        self.following, self._followed = not self.following, ""
        self._follow()
        self.show_top()

    def stop_following(self) -> None:
        self.following = False

    @on(CheckpointSaved)
    def _follow(self) -> None:
        """Opens the watched run's newest checkpoint, if the user follows the run and it has one."""
        pane = self.query_one(TrainingPane)
        run, snapshot = pane.watcher.run_watched, pane.snapshot
        if not self.following or run is None or snapshot is None or snapshot.checkpoint is None:
            return
        if self._followed == run.name and self._open_is(run.name):
            self.client.refresh()  # keeps the generated tokens
        else:
            self._followed = run.name
            self.stop_stream()
            self.client.open(run_model(run.name))

    @on(RunWatched)
    def _another_is_watched(self) -> None:
        self.show_top()

    def _open_is(self, run: str) -> bool:
        return self.weights is not None and self.weights.step is not None and self.weights.name == run

    @property
    def following_words(self) -> str:
        """What the top line says about following, after the model's name and step: foreign text."""
        run = self.query_one(TrainingPane).watcher.run_watched
        if not self.following or run is None:
            return ""
        return ", following" if self._open_is(run.name) else f", waiting for a checkpoint of {run.name}"
