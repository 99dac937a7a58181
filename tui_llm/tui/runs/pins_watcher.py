"""Watches a run's pinned prompts during training, as `run_watcher` watches its losses: only what is new is read."""

from __future__ import annotations

from textual import work
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

from tui_llm.training.plan import launch
from tui_llm.training.run.pins_snapshot import PinsReader, PinsSnapshot
from tui_llm.training.run.run import Run
from tui_llm.tui.runs.run_watcher import INTERVAL


class PinsWatcher(Widget):
    """Posts `Updated` at once, then after each `INTERVAL` in which something changed, while the run is alive. `read` reads
    the run now."""

    DEFAULT_CSS = "PinsWatcher { display: none; }"

    class Updated(Message):
        def __init__(self, snapshot: PinsSnapshot) -> None:
            self.snapshot = snapshot
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, PinsWatcher.Updated)

    class ReadDone(Message):
        def __init__(self, snapshot: PinsSnapshot) -> None:
            self.snapshot = snapshot
            super().__init__()

    def __init__(self, run: Run | None) -> None:
        super().__init__()
        self._reader = PinsReader(run)
        self._busy = self._again = False
        self._timer: Timer | None = None
        self._snapshot: PinsSnapshot | None = None

    def on_mount(self) -> None:
        self._timer = self.set_interval(INTERVAL, self.read, pause=True)
        self.read()

    def read(self) -> None:
        """Reads the run now or, if a read is in progress, again after it."""
        self._again = self._busy
        if not self._busy:
            self._busy = True
            self._read()

    @work(thread=True, group="pins")
    def _read(self) -> None:
        try:
            launch.reap()
            snapshot = self._reader.read()
        finally:
            self._busy = False
        self.post_message(self.ReadDone(snapshot))

    def on_pins_watcher_read_done(self, message: ReadDone) -> None:
        message.stop()
        snapshot = message.snapshot
        if self._timer and snapshot.status is not None and snapshot.status.alive:
            self._timer.resume()
        elif self._timer:
            self._timer.pause()
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            self.post_message(self.Updated(snapshot))
        if self._again:
            self.read()
