"""Looks at a run's pinned prompts while it is trained, as `run_watch` looks at its losses: only what is new is read."""

from __future__ import annotations

from dataclasses import dataclass

from textual import work
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

from tui_llm.errors import UserError
from tui_llm.training import launch, pins, probe_log
from tui_llm.training.pins import Pin
from tui_llm.training.probe_log import Moment, ProbeTail
from tui_llm.training.run import Run, Status
from tui_llm.tui.run_watch import CHUNK, INTERVAL


@dataclass(frozen=True, slots=True)
class ProbeSnapshot:
    """What was known at one moment: the run's saved moments in the order of steps, the pins that it reads (`running`) and
    those of the user (`mine`). Without a run, only the latter. `problem` says which file of pins can't be read."""

    name: str = ""
    status: Status | None = None
    moments: tuple[Moment, ...] = ()
    running: tuple[Pin, ...] = ()
    mine: tuple[Pin, ...] = ()
    problem: str = ""

    @property
    def pins(self) -> tuple[Pin, ...]:
        """Every pin that there is something to say about: those that were read first."""
        return tuple(dict.fromkeys((*probe_log.pins_of(self.moments[-1:]), *probe_log.pins_of(self.moments),
                                    *self.running, *self.mine)))  # fmt: skip


class ProbeReader:
    """Reads one run's pins, each time only what is new. Never raises on what it finds."""

    def __init__(self, run: Run | None) -> None:
        self.run = run
        self.tail = ProbeTail(run) if run else None
        self.moments: tuple[Moment, ...] = ()

    def read(self) -> ProbeSnapshot:
        problem = ""
        mine: list[Pin] = []
        running: list[Pin] = []
        try:
            mine = pins.of_user()
            running = pins.of_run(self.run) if self.run else []
        except UserError as error:
            problem = str(error)
        if self.run is None or self.tail is None:
            return ProbeSnapshot(mine=tuple(mine), problem=problem)
        status = self.run.status()  # before the file, so that the last line of a run that ends is not missed
        more = True
        while more:
            new = self.tail.new(CHUNK)
            if self.tail.restarted:
                self.moments = ()
            if new:
                self.moments = tuple(probe_log.in_order((*self.moments, *new)))
            more = self.tail.more
        return ProbeSnapshot(self.run.name, status, self.moments, tuple(running), tuple(mine), problem)


class ProbeWatcher(Widget):
    """Posts `Seen` at once, then twice a second while the run is alive; `look` takes another look."""

    DEFAULT_CSS = "ProbeWatcher { display: none; }"

    class Seen(Message):
        def __init__(self, snapshot: ProbeSnapshot) -> None:
            self.snapshot = snapshot
            super().__init__()

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, ProbeWatcher.Seen)

    class Looked(Message):
        def __init__(self, snapshot: ProbeSnapshot) -> None:
            self.snapshot = snapshot
            super().__init__()

    def __init__(self, run: Run | None) -> None:
        super().__init__()
        self._reader = ProbeReader(run)
        self._busy = self._again = False
        self._timer: Timer | None = None
        self._snapshot: ProbeSnapshot | None = None

    def on_mount(self) -> None:
        self._timer = self.set_interval(INTERVAL, self.look, pause=True)
        self.look()

    def look(self) -> None:
        """Takes a look now or, where one is being taken, after it."""
        self._again = self._busy
        if not self._busy:
            self._busy = True
            self._look()

    @work(thread=True, group="probes")
    def _look(self) -> None:
        try:
            launch.reap()
            snapshot = self._reader.read()
        finally:
            self._busy = False
        self.post_message(self.Looked(snapshot))

    def on_probe_watcher_looked(self, message: Looked) -> None:
        message.stop()
        snapshot = message.snapshot
        if self._timer and snapshot.status is not None and snapshot.status.alive:
            self._timer.resume()
        elif self._timer:
            self._timer.pause()
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            self.post_message(self.Seen(snapshot))
        if self._again:
            self.look()
