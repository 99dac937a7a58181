"""An incremental reader of a run's pin readings that returns frozen snapshots."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.common.errors import UserError
from tui_llm.facts.pin import Pin
from tui_llm.training.run import pin_readings, pins
from tui_llm.training.run.pin_readings import PinEvaluation, PinReadingsTail
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import CHUNK, unreadable
from tui_llm.training.run.status import Status


@dataclass(frozen=True, slots=True)
class PinsSnapshot:
    """The recorded predictions of a run at one time.

    `evaluations` are in the order of steps, `of_run` are the pins that the run's worker evaluates, `of_user` those of
    pins.json. Without a run there are only the latter. `problem` names the file that can't be read.
    """

    name: str = ""
    status: Status | None = None
    evaluations: tuple[PinEvaluation, ...] = ()
    of_run: tuple[Pin, ...] = ()
    of_user: tuple[Pin, ...] = ()
    problem: str = ""

    @property
    def pins(self) -> tuple[Pin, ...]:
        """Every pin once: those of the last evaluation, of earlier evaluations, of the run, then of the user."""
        newest_first = (*self.evaluations[-1:], *self.evaluations)
        return tuple(dict.fromkeys((*pin_readings.pins_of(newest_first), *self.of_run, *self.of_user)))


class PinsReader:
    """Reads one run's predictions for its pins; each call reads only what is new.

    Never raises because of their content.
    """

    def __init__(self, run: Run | None) -> None:
        self.run = run
        self.tail = PinReadingsTail(run) if run else None
        self.evaluations: tuple[PinEvaluation, ...] = ()

    def read(self) -> PinsSnapshot:
        """Reads what is new and returns a snapshot."""
        try:
            return self._read()
        except Exception as error:
            assert self.run is not None
            status = unreadable(self.run, error)
            return PinsSnapshot(self.run.name, status, problem=status.problem)

    def _read(self) -> PinsSnapshot:
        problem = ""
        of_user: list[Pin] = []
        of_run: list[Pin] = []
        try:
            of_user = pins.of_user()
            of_run = pins.of_run(self.run) if self.run else []
        except UserError as error:
            problem = str(error)
        if self.run is None or self.tail is None:
            return PinsSnapshot(of_user=tuple(of_user), problem=problem)
        status = self.run.status()  # before the file: if the run ends in between, it seems alive and is read again
        more = True
        while more:
            new = self.tail.new(CHUNK)
            if self.tail.restarted:
                self.evaluations = ()
            if new:
                self.evaluations = tuple(pin_readings.in_order((*self.evaluations, *new)))
            more = self.tail.more
        problem = problem or self.tail.problem
        return PinsSnapshot(self.run.name, status, self.evaluations, tuple(of_run), tuple(of_user), problem)
