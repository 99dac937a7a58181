"""Whether a run is normal: its alarms, and the band of its loss at the end. Incremental, for live runs; does not import torch.

The worker writes each alarm to alarms.jsonl, with its step: `record` and `recorded`; once, but outlier rows again at evaluations
if there were more of them. A reader of the metrics finds the same alarms itself, also in runs of earlier versions; it adds what
only the worker knows: why it gave up, and outlier rows, which are judged by file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.facts.token_place import TokenPlace
from tui_llm.training.run import changes, earlier_runs, jsonl
from tui_llm.training.run.alarm_kinds import KINDS, Alarm
from tui_llm.training.run.alarms import AlarmReader
from tui_llm.training.run.config import RunConfig
from tui_llm.training.run.curve import Envelope
from tui_llm.training.run.loss_band import LossBand, LossBandReader
from tui_llm.training.run.metrics import LARGEST_STEP, Metric, MetricsTail
from tui_llm.training.run.outlier_rows import RowFiles
from tui_llm.training.run.run import Run, find
from tui_llm.training.run.settings import PRETRAINING, TrainingSettings

LONGEST = 1000  # characters of an alarm's evidence that are read
# Bytes of metrics that are read in a list of runs: for a run without alarms.jsonl, and for a live run.
NEWEST = 16 << 20  # bytes of alarms.jsonl: some 50,000 alarms
SMALL, LARGEST = 1 << 20, 8 << 20


@dataclass(frozen=True, slots=True)
class Health:
    """alarms: in the order of steps. left_out: how many more there were. band: None once the run is done, and where a loss has
    no such band. judged_from: the first step that was looked at for a spike; None before it, and where it is not known."""

    alarms: tuple[Alarm, ...] = ()
    left_out: int = 0
    band: LossBand | None = None
    judged_from: int | None = None

    @property
    def count(self) -> int:
        return len(self.alarms) + self.left_out


def alarms_path(run: Run) -> Path:
    return run.path / "alarms.jsonl"


def record(run: Run, alarms: Iterable[Alarm]) -> None:
    """Appends them to alarms.jsonl. Raises OSError."""
    for alarm in alarms:
        jsonl.append_to(alarms_path(run), {**asdict(alarm), "advice": alarm.advice})


def recorded(run: Run) -> list[Alarm]:
    """Reads the last `NEWEST` bytes of alarms.jsonl: of lines of one kind and step, the last one; lines that are no alarms
    are skipped. `evidence` is not sanitized for a terminal."""
    path = alarms_path(run)
    try:
        offset = max(0, path.stat().st_size - NEWEST)
    except OSError:
        return []
    return list({one.key: one for one in jsonl.each(path, _parse, offset)}.values())


def tail(run: Run) -> jsonl.Tail[Alarm]:
    """Reads alarms.jsonl as it grows."""
    return jsonl.Tail(alarms_path(run), lambda line: jsonl.parsed(line, _parse))


def _parse(value: Any) -> Alarm:
    """Raises ValueError, KeyError or TypeError if it is no alarm."""
    step, since, kind = int(value["step"]), int(value["since"]), value["kind"]
    if kind not in KINDS or not 0 <= since <= step < LARGEST_STEP:
        raise ValueError(kind)
    row, place = value.get("row"), value.get("place")
    return Alarm(
        kind, step, since, str(value["evidence"])[:LONGEST], None if row is None else int(row),
        None if place is None else _place(place), max(1, int(value.get("count", 1))),
    )  # fmt: skip


def _place(value: Any) -> TokenPlace:
    offset, record = (None if value.get(name) is None else int(value[name]) for name in ("offset", "record"))
    return TokenPlace(str(value["file"])[:LONGEST], offset, record)


def begin(run: Run, settings: TrainingSettings, facts: Mapping[str, Any], files: RowFiles | None = None) -> AlarmReader:
    """The worker's reader: it has read the metrics so far, and alarms.jsonl exists. Raises OSError."""
    reader = AlarmReader(settings, facts, files, run.config().begin)
    tail, known = MetricsTail(run.metrics_path), {one.key: one for one in recorded(run)}
    while True:
        new = reader.add(tail.new(SMALL))
        record(run, [alarm for alarm in new if alarm.key not in known])
        if not tail.more:
            break
    record(run, [alarm for alarm in reader.updates() if known.get(alarm.key) != alarm])
    with storage.open_file(alarms_path(run), "ab"):
        pass  # it says that the worker looked, even if it finds nothing
    return reader


def listed(run: Run, *, alive: bool) -> Health | None:
    """The alarms of a run in a list of many: those that its worker wrote; and the band of a live run. For a run of an earlier
    version they are computed; None if its metrics are too long for that, or its config can't be read."""
    written = alarms_path(run).exists()
    try:
        if (not written or alive) and run.metrics_path.stat().st_size <= (LARGEST if alive else SMALL):
            return health_of(run)
    except (OSError, UserError, ArithmeticError, ValueError):  # whatever a run's files contain: the others are listed
        pass
    return Health(tuple(recorded(run))) if written else None


class HealthReader:
    """Reads a run's alarms and its band beside the metrics that its owner reads."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._settings: TrainingSettings | None = None
        self._alarms: AlarmReader | None = None
        self._bands: LossBandReader | None = None
        self._band: LossBand | None = None
        self._mark: tuple[int, int] | None = None
        self._recorded: list[Alarm] = []

    def add(self, metrics: list[Metric], config: RunConfig | None, facts: Mapping[str, Any]) -> None:
        """Reads the next steps. `facts` are complete before the first one; without the settings nothing is known."""
        if config is None or not metrics:
            return
        if self._alarms is None:
            self._settings, self._alarms = config.settings, AlarmReader(config.settings, facts, begin=config.begin)
        self._alarms.add(metrics)

    def band(self, curve: Envelope, config: RunConfig | None, done: int) -> LossBand | None:
        """The band from the whole curve so far; None for a run that is done or has another kind of loss."""
        if config is None or config.settings.objective != PRETRAINING or done >= config.settings.steps:
            return None
        if self._alarms is not None and self._alarms.diverges:
            return LossBand(missing="no band of the end's loss while the loss diverges")
        if self._bands is None or self._settings != config.settings:
            self._settings = config.settings
            self._bands = LossBandReader(config.settings, lambda: earlier_runs.find(self.run, config))
        try:
            made = changes.read(self.run)
        except UserError as error:
            return LossBand(missing=f"no band of the end's loss: {error}")
        return self._bands.read(curve.sums(), made)

    def read(self, band: LossBand | None) -> Health:
        """The alarms so far, with those that only the worker knows."""
        computed = self._alarms.alarms if self._alarms is not None else ()
        seen = {one.key for one in computed}
        more = [one for one in self._of_worker() if one.key not in seen]
        alarms = tuple(sorted((*computed, *more), key=lambda one: one.step))
        if (reader := self._alarms) is None:
            return Health(alarms, 0, band)
        return Health(alarms, reader.left_out, band, reader.judged_from)

    def _of_worker(self) -> list[Alarm]:
        try:
            stat = alarms_path(self.run).stat()
            mark = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            return []
        if mark != self._mark:
            self._mark, self._recorded = mark, recorded(self.run)
        return self._recorded


def run_health(name: str) -> Health:
    """The alarms of the run `name`, and the band in which its loss will lie at the end.

    Example: `[alarm.evidence for alarm in run_health("tales").alarms]`. While the run trains on text, `.band.words` is such as
    "ends between 2.31 and 2.44 (80 %)"; else `.band` is None. Reads the run's files once. Raises `UserError` if there is no such run, or if its config can't be read.
    """
    return health_of(find(name))


def health_of(run: Run) -> Health:
    """Reads the files of `run` once. Raises `UserError` if its config can't be read."""
    config, reader, curve = run.config(), HealthReader(run), Envelope()
    tail, done, facts = MetricsTail(run.metrics_path), 0, run.facts()
    while True:
        metrics = tail.new(SMALL)
        reader.add(metrics, config, facts)
        for metric in metrics:
            curve.add(metric.step, metric.loss)
            done = metric.step
        if not tail.more:
            return reader.read(reader.band(curve, config, done))


def as_json(health: Health | None) -> dict[str, Any]:
    """The keys of `--json`: numbers that are not finite become null."""
    if health is None:
        return {"alarms": None, "alarms_left_out": None, "band": None}
    band = health.band
    shown: dict[str, Any] | None = None
    if band is not None:
        values = {name: getattr(band, name) for name in ("low", "expected", "high")}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        shown = {**asdict(band), **finite, "missing": band.missing or None}
    return {"alarms": [alarm_json(one) for one in health.alarms], "alarms_left_out": health.left_out, "band": shown}


def alarm_json(alarm: Alarm) -> dict[str, Any]:
    return {**asdict(alarm), "advice": alarm.advice}
