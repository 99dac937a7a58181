"""Watches a run during training. A reader turns its directory into frozen snapshots; a watcher posts them.

Nothing here draws, and all that is known about a run comes from its directory: after a restart of the app the snapshot
is the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from textual import work
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

from tui_llm.training.plan import launch
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import RunReader, RunSnapshot, most_recent

INTERVAL = 1.0  # seconds between two reads; each read costs the run some time


class RunWatcher(Widget):
    """Posts `Seen` for the watched run and those compared with it: at once, then after each `INTERVAL` in which
    something changed, while one of them is alive. Idle while none is alive; `look` reads the runs now."""

    DEFAULT_CSS = "RunWatcher { display: none; }"

    class Seen(Message):
        """`snapshot` is None if there is no run at all; `others` are the runs compared with it."""

        def __init__(self, snapshot: RunSnapshot | None, others: tuple[RunSnapshot, ...] = ()) -> None:
            self.snapshot, self.others = snapshot, others
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, RunWatcher.Seen)

    class Found(Message):
        def __init__(self, instead_of: Run | None, run: Run | None) -> None:
            self.instead_of, self.run = instead_of, run
            super().__init__()

    class Looked(Message):
        def __init__(self, reader: RunReader, snapshot: RunSnapshot, compared: tuple[RunReader, ...]) -> None:
            self.reader, self.snapshot, self.compared = reader, snapshot, compared
            super().__init__()

    def __init__(self) -> None:
        super().__init__()
        self._reader: RunReader | None = None
        self._timer: Timer | None = None
        self._snapshot: RunSnapshot | None = None
        self._compared: tuple[RunReader, ...] = ()
        self._others: tuple[RunSnapshot, ...] = ()

    def on_mount(self) -> None:
        self._timer = self.set_interval(INTERVAL, self.look, pause=True)
        self.find()

    @property
    def run_watched(self) -> Run | None:
        return self._reader.run if self._reader else None

    def follow(self, run: Run | None) -> None:
        """Watches `run` from now on."""
        self._reader, self._snapshot = RunReader(run) if run else None, None
        if run:
            self.look()
        else:
            self._rest()
            self.post_message(self.Seen(None))

    @property
    def compared(self) -> list[str]:
        return [reader.run.name for reader in self._compared]

    def compare(self, others: Sequence[Run]) -> None:
        """Also reads `others` from now on."""
        before = {reader.run.name: reader for reader in self._compared}
        if [run.name for run in others] != list(before):
            self._compared = tuple(before.get(run.name) or RunReader(run) for run in others)
            self.look()

    @work(thread=True, exclusive=True, group="find")
    def find(self) -> None:
        """Watches the most recent run. Keeps the watched run if it still exists and either it is alive or the most
        recent run is not."""
        watched, found = self.run_watched, most_recent()
        stays = watched is not None and watched.exists()
        if found and stays and (not found.alive() or (watched and watched.alive())):
            found = watched
        self.post_message(self.Found(watched, found))

    def on_run_watcher_found(self, message: Found) -> None:
        message.stop()
        if message.instead_of is not self.run_watched:
            return  # the user chose a run meanwhile
        if message.run is None or message.run is not self.run_watched:
            self.follow(message.run)
        else:
            self.look()

    def look(self) -> None:
        """Reads the runs now, unless a read is in progress."""
        reader = self._reader
        if reader and not reader.busy:
            reader.busy = True
            self._look(reader, self._compared)

    @work(thread=True, group="look")
    def _look(self, reader: RunReader, compared: tuple[RunReader, ...]) -> None:
        try:
            launch.reap()
            shown = -math.inf  # the first snapshot is posted at once: for a long run it is a partial one
            snapshot = reader.read()
            while snapshot.reading and reader is self._reader and self.is_running:
                if time.monotonic() - shown >= INTERVAL:
                    shown = time.monotonic()
                    self.post_message(self.Looked(reader, snapshot, compared))
                snapshot = reader.read()
            for other in compared:
                other.snapshot = other.read()
                while other.snapshot.reading and self.is_running:
                    other.snapshot = other.read()
        finally:
            reader.busy = False
        self.post_message(self.Looked(reader, snapshot, compared))

    def on_run_watcher_looked(self, message: Looked) -> None:
        message.stop()
        snapshot = message.snapshot
        if message.reader is not self._reader:
            return
        compared = [other for other in message.compared if other in self._compared]
        others = tuple(other.snapshot for other in compared if other.snapshot and other.snapshot.name != snapshot.name)
        if message.compared is not self._compared:
            self.look()  # other runs were chosen during this read
        if self._timer and any(seen.status.alive for seen in (snapshot, *others)):
            self._timer.resume()
        else:
            self._rest()
            if self._snapshot and self._snapshot.status.alive:
                self.set_timer(2 * INTERVAL, self.look)  # its process is only ending now: reads once more, to reap it
        if (snapshot, others) != (self._snapshot, self._others):
            self._snapshot, self._others = snapshot, others
            self.post_message(self.Seen(snapshot, others))

    def _rest(self) -> None:
        if self._timer:
            self._timer.pause()
