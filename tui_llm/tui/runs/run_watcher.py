"""`RunWatcher` reads a run's directory during training and posts what it contains as frozen snapshots.

It keeps no state of the run: after a restart of the app the snapshot is the same.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual import work
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

from tui_llm.common import paths
from tui_llm.training.plan import launch
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import RunReader, RunSnapshot, most_recent

if TYPE_CHECKING:
    from tui_llm.training.run.foreign.foreign_curves import SnapshotReader

INTERVAL = 1.0  # seconds between two reads; each read costs the run some time
LOOK = 5.0  # seconds between two looks for what another program has changed


class RunWatcher(Widget):
    """Posts `Updated` with snapshots of the watched run and of those compared with it.

    The first follows at once. While one of the runs is alive, they are read after each `INTERVAL`, and `Updated` is
    posted if something changed. Otherwise, each `LOOK` seconds, the time of one file says whether another program has
    resumed or deleted the run, or, where there is none, has made one.
    """

    DEFAULT_CSS = "RunWatcher { display: none; }"

    class Updated(Message):
        """`snapshot` is None if there is no run; `others` are the runs compared with it."""

        def __init__(self, snapshot: RunSnapshot | None, others: tuple[RunSnapshot, ...] = ()) -> None:
            self.snapshot, self.others = snapshot, others
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, RunWatcher.Updated)

    class ChangedElsewhere(Message):
        """Another program has changed the run, or has made one where there was none."""

    class Looked(Message):
        """`path`, the file that tells of changes of `watched`, was last changed at that time; None: it does not exist."""

        def __init__(self, watched: Run | None, path: Path, changed: int | None) -> None:
            self.watched, self.path, self.changed = watched, path, changed
            super().__init__()

    class MostRecentFound(Message):
        """`find` has chosen `run`; `watched` is the run that was watched when the search began."""

        def __init__(self, watched: Run | None, run: Run | None) -> None:
            self.watched, self.run = watched, run
            super().__init__()

    class ReadDone(Message):
        """The thread has read the runs."""

        def __init__(self, reader: RunReader, snapshot: RunSnapshot, compared: tuple[SnapshotReader, ...]) -> None:
            self.reader, self.snapshot, self.compared = reader, snapshot, compared
            super().__init__()

    def __init__(self) -> None:
        super().__init__()
        self._reader: RunReader | None = None
        self._timer: Timer | None = None
        self._snapshot: RunSnapshot | None = None
        self._compared: tuple[SnapshotReader, ...] = ()
        self._others: tuple[RunSnapshot, ...] = ()
        self._comparing = threading.Lock()  # two threads may have the same reader, which is for one at a time
        self._seen: tuple[Path, int | None] | None = (
            None  # the file that was looked at last, and when it had been changed
        )

    def on_mount(self) -> None:
        self._timer = self.set_interval(INTERVAL, self.read, pause=True)
        self.set_interval(LOOK, self._look)
        self.find()

    @property
    def run_watched(self) -> Run | None:
        return self._reader.run if self._reader else None

    def follow(self, run: Run | None) -> None:
        """Watches `run` from now on."""
        self._reader, self._snapshot = RunReader(run) if run else None, None
        if run:
            self.read()
        else:
            self._pause_timer()
            self.post_message(self.Updated(None))

    @property
    def compared(self) -> list[str]:
        return [reader.run.name for reader in self._compared]

    @property
    def compared_runs(self) -> list[Run]:
        return [reader.run for reader in self._compared]

    def compare(self, others: Sequence[Run]) -> None:
        """Also reads `others` from now on."""
        before = {reader.run.name: reader for reader in self._compared}
        if [run.name for run in others] != list(before):
            from tui_llm.training.run.foreign.foreign_curves import snapshot_reader  # not needed for the first paint

            self._compared = tuple(before.get(run.name) or snapshot_reader(run) for run in others)
            self.read()

    @work(thread=True, exclusive=True, group="find")
    def find(self) -> None:
        """Watches the most recent run. If the watched run still exists, changes to another one only if that is alive
        and the watched run is not."""
        watched, found = self.run_watched, most_recent()
        stays = watched is not None and watched.exists()
        if found and stays and (not found.alive() or (watched and watched.alive())):
            found = watched
        self.post_message(self.MostRecentFound(watched, found))

    def on_run_watcher_most_recent_found(self, message: MostRecentFound) -> None:
        message.stop()
        if message.watched is not self.run_watched:
            return  # the user chose a run meanwhile
        if message.run is None or message.run is not self.run_watched:
            self.follow(message.run)
        else:
            self.read()

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        watched, snapshot = self.run_watched, self._snapshot
        if snapshot is not None and snapshot.status.alive:
            return  # it is read anyway
        path = watched.path / "status.json" if watched is not None else paths.runs_dir()
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            changed = None
        self.post_message(self.Looked(watched, path, changed))

    def on_run_watcher_looked(self, message: Looked) -> None:
        message.stop()
        if message.watched is not self.run_watched:
            return  # another run is watched by now, and its file may have been looked at
        before, self._seen = self._seen, (message.path, message.changed)
        if before is not None and before[0] == message.path and before[1] != message.changed:
            self.post_message(self.ChangedElsewhere())

    def on_run_watcher_changed_elsewhere(self, message: ChangedElsewhere) -> None:
        message.stop()
        if self.run_watched is None or not self.run_watched.exists():
            self.find()
        else:
            self.read()

    def read(self) -> None:
        """Reads the runs now, unless a read is in progress."""
        reader = self._reader
        if reader and not reader.busy:
            reader.busy = True
            self._read(reader, self._compared)

    @work(thread=True, group="read")
    def _read(self, reader: RunReader, compared: tuple[SnapshotReader, ...]) -> None:
        try:
            launch.reap()
            shown = -math.inf  # the first snapshot is posted at once: for a long run it is a partial one
            snapshot = reader.read()
            while snapshot.reading and reader is self._reader and self.is_running:
                if time.monotonic() - shown >= INTERVAL:
                    shown = time.monotonic()
                    self.post_message(self.ReadDone(reader, snapshot, compared))
                snapshot = reader.read()
            with self._comparing:
                for other in compared:
                    other.snapshot = other.read()
                    while other.snapshot.reading and self.is_running:
                        other.snapshot = other.read()
        finally:
            reader.busy = False
        self.post_message(self.ReadDone(reader, snapshot, compared))

    def on_run_watcher_read_done(self, message: ReadDone) -> None:
        message.stop()
        snapshot = message.snapshot
        if message.reader is not self._reader:
            return
        compared = [other for other in message.compared if other in self._compared]
        others = tuple(other.snapshot for other in compared if other.snapshot and other.snapshot.name != snapshot.name)
        if message.compared is not self._compared:
            self.read()  # other runs were chosen during this read
        if self._timer and any(seen.status.alive for seen in (snapshot, *others)):
            self._timer.resume()
        else:
            self._pause_timer()
            if self._snapshot and self._snapshot.status.alive:
                self.set_timer(2 * INTERVAL, self.read)  # once more, to reap its process, which may still be exiting
        if (snapshot, others) != (self._snapshot, self._others):
            self._snapshot, self._others = snapshot, others
            self.post_message(self.Updated(snapshot, others))

    def _pause_timer(self) -> None:
        if self._timer:
            self._timer.pause()
