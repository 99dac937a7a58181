"""A foreign log's curves in the form in which the screens and `tui-llm runs curves` take those of a run."""

from __future__ import annotations

import functools
import threading
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

from tui_llm.training.run.curve import SHARES, Average, moving_average
from tui_llm.training.run.foreign.foreign_run import STATE, ForeignRun
from tui_llm.training.run.foreign.log_files import ForeignLog
from tui_llm.training.run.run import Run
from tui_llm.training.run.run_curves import RUN_CURVES, CurveLine, CurveValues, RunCurves, RunCurvesReader
from tui_llm.training.run.snapshot import RunReader, RunSnapshot
from tui_llm.training.run.status import Status

NO_LOG = "no log was found: its checkpoints only"


class CurvesReader(Protocol):
    """Reads the curves of a run, a part at each call."""

    run: Run

    def read(self) -> RunCurves: ...

    def at(self, step: int) -> dict[str, CurveValues]: ...


class SnapshotReader(Protocol):
    """Reads what the loss chart shows of a run, a part at each call."""

    run: Run
    busy: bool
    snapshot: RunSnapshot | None

    def read(self) -> RunSnapshot: ...


def curves_reader(run: Run) -> CurvesReader:
    """The reader of a run's curves, of this program or another."""
    return ForeignCurvesReader(run) if isinstance(run, ForeignRun) else RunCurvesReader(run)


def snapshot_reader(run: Run) -> SnapshotReader:
    """The reader of a run's snapshots, of this program or another."""
    return ForeignReader(run) if isinstance(run, ForeignRun) else RunReader(run)


class ForeignCurvesReader:
    """Each `read` reads only what is new. Never raises because of the log's content."""

    def __init__(self, run: ForeignRun) -> None:
        self.run: Run = run
        self._source = LogSource(run)
        self._lock = threading.Lock()  # `read` and `at` run on different threads
        self._shown: RunCurves | None = None
        self._read = (-1, -1)

    def read(self) -> RunCurves:
        with self._lock:
            more = self._source.log.read()
            found = self._source.log.curves
            state = (found.last, sum(one.count for one in found.curves.values()))
            if self._shown is None or more or self._shown.reading or state != self._read:
                self._read, self._shown = state, self._curves(reading=more)
            return self._shown

    def _curves(self, *, reading: bool) -> RunCurves:
        found = self._source.log.curves
        lines: dict[str, Sequence[CurveLine]] = {
            key: [CurveLine(None, one.points.points())] for key, one in found.curves.items()
        }
        return RunCurves(
            self.run.name,
            self._source.status(),
            found.infos() or RUN_CURVES[:1],
            lines,
            found.clock(),
            found.step_tokens,
            found.flops_per_token,
            None,
            reading,
        )

    def at(self, step: int) -> dict[str, CurveValues]:
        """The values at `step` or the last step before it that has some; of a long log, of the points that are kept."""
        values = {}
        with self._lock:
            shown = self._shown
        for key, lines in (shown.lines if shown is not None else {}).items():
            points = lines[0].points
            before = bisect_right(points, step, key=lambda point: point[0]) - 1
            if before >= 0:
                values[key] = CurveValues(points[before][0], (points[before][1],))
        return values


class LogSource:
    """The log of a foreign run and its last checkpoint, looked for at the first read: that takes time in a large folder."""

    def __init__(self, run: ForeignRun) -> None:
        self._run = run

    @functools.cached_property
    def log(self) -> ForeignLog:
        return ForeignLog(self._run.log_files())

    @functools.cached_property
    def last_checkpoint(self) -> int | None:
        """The step of the last checkpoint; None without one."""
        return max((step for step, _ in self._run.saved()), default=None)

    def status(self) -> Status:
        """What the log says of the run: the kind of log, the last step, what was left out."""
        found = self.log.curves
        last = max(found.last, self.last_checkpoint or 0)
        words = [f"log of {found.kind}" if found.curves else NO_LOG, *found.notes()]
        return Status(STATE, "; ".join(words), last, max(found.steps, last), problem=self.log.problem)


class ForeignReader:
    """As `RunReader`, for the loss chart: the loss, the validation loss and the moving averages of a log."""

    def __init__(self, run: ForeignRun) -> None:
        self.run: Run = run
        self.busy = False
        self.snapshot: RunSnapshot | None = None
        self._source = LogSource(run)

    @property
    def kind(self) -> str:
        """The program that wrote the log; `checkpoints` without one."""
        return self._source.log.curves.kind or ("" if self._source.last_checkpoint is None else "checkpoints")

    def read(self) -> RunSnapshot:
        more = self._source.log.read()
        found = self._source.log.curves
        train, validation = found.points("loss"), found.points("val_loss")
        status = self._source.status()
        sums = found.curves["loss"].points.sums() if "loss" in found.curves else []
        windows = [(share, max(2, round(share * status.steps))) for share in SHARES]
        return RunSnapshot(
            name=self.run.name,
            status=status,
            train=train,
            validation=validation,
            averages=tuple(Average(share, window, moving_average(sums, window)) for share, window in windows),
            last_validation=validation[-1] if validation else None,
            checkpoint=self._source.last_checkpoint,
            reading=more,
        )
