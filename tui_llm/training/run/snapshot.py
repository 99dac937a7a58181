"""An incremental reader of a run's directory that returns frozen snapshots.

All state comes from the directory: a new process reads the same snapshot.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import statistics
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_llm.common.errors import UserError
from tui_llm.facts.machine_reading import MachineReading
from tui_llm.llm.predict.units import perplexity, uniform_loss
from tui_llm.training.run import branch, gauges
from tui_llm.training.run.config import RunConfig
from tui_llm.training.run.curve import SHARES, Average, Envelope, ParentCurve, Point, moving_average
from tui_llm.training.run.metrics import Metric, MetricsTail
from tui_llm.training.run.quantities import Series, SeriesReader
from tui_llm.training.run.run import Run, Sample, runs
from tui_llm.training.run.settings import PRETRAINING, TrainingSettings
from tui_llm.training.run.status import Status, number

if TYPE_CHECKING:
    from tui_llm.training.run.health import Health
    from tui_llm.training.run.loss_band import LossBand

log = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes of metrics read at a time: about 7,000 steps

LONG = 16 * CHUNK  # bytes of metrics; a longer file is sampled first, since reading all of it takes long

PLACES = 256  # number of places at which such a file is sampled

RECENT = 50  # number of last steps that speed, MFU and remaining time are estimated from


def speed(recent: Iterable[Metric]) -> float | None:
    """Returns tokens per second over `recent` steps of equal size; None if no value is valid. It is the tokens/s of every
    screen and command: pass it the last `RECENT` steps."""
    return mean_rate(m.tokens_per_second for m in recent)


def mean_rate(rates: Iterable[float]) -> float | None:
    """Returns the harmonic mean of the rates that are valid: that of work of equal size done at them; None if none is."""
    valid = [rate for rate in rates if math.isfinite(rate) and rate > 0]
    return statistics.harmonic_mean(valid) if valid else None


def last_metrics(run: Run) -> list[Metric]:
    """Returns up to `RECENT` of the run's last metrics, without reading the others."""
    tail = MetricsTail(run.metrics_path)
    try:
        tail.offset = max(0, run.metrics_path.stat().st_size - 400 * RECENT)
    except OSError:
        return []
    return tail.new()[-RECENT:]


def flops_per_token(recent: Iterable[Metric]) -> float | None:
    """Returns the mean operations per token over `recent` steps; None if they do not differ by step."""
    found = [m.flops_per_token for m in recent if m.flops_per_token is not None and math.isfinite(m.flops_per_token)]
    return statistics.fmean(found) if found else None


def seconds_left(recent: Sequence[Metric], steps: int) -> float | None:
    """Returns the estimated seconds until step `steps`, or None if `recent` has no two pairs of consecutive steps: one
    alone may be a pause.

    The estimate uses the time between `recent` steps, including evaluations and checkpoints, but not pauses.
    """
    gaps = [b.time - a.time for a, b in itertools.pairwise(recent) if b.step == a.step + 1]
    gaps = [gap for gap in gaps if math.isfinite(gap) and gap >= 0]
    if len(gaps) < 2:
        return None
    pause = max(60.0, 50 * statistics.median_low(gaps))
    gaps = [gap for gap in gaps if gap <= pause]
    return max(0, steps - recent[-1].step) * sum(gaps) / len(gaps)


def epoch(config: RunConfig | None, step: int, train_tokens: float | None) -> float | None:
    """Returns the tokens trained on up to `step` as a multiple of the corpus's training tokens; the pairs or prompts as a
    multiple of the training rows, for a run that learns from answers."""
    if config is None or train_tokens is None or train_tokens <= 0:
        return None
    settings = config.settings
    if (tokens := config.tokens_at(step)) is not None:
        return tokens / train_tokens
    return step * settings.batch_size * settings.grad_accumulation_steps / train_tokens


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """The state of a run's directory at one time. Losses are in nats per token, but see `loss_meaning`.

    `train` and `validation` are curves of bounded length (see `Envelope`), `averages` the moving averages of `train`,
    the shortest window first. `uniform_loss` is ln V, `unigram_loss` and `bigram_loss` are the corpus's entropies,
    `floor_loss` is its known minimum, and `shipped` is a shipped model's name and its loss on the run's held-out rows.
    `mfu` is the model FLOPs utilization (None until the machine's peak is measured), `memory_bytes` the memory last
    reported by the worker, `gpu_use` the GPU's utilization, 0 to 1, `machine` its newest gauges. `epoch` is tokens trained on ÷ training tokens of
    the corpus, `perplexity` is e^(last validation loss). While `reading` is true, the metrics file is not yet read to
    its end; the curves of a very long run then show a few steps at each of `PLACES` places in the file.

    A run that learns from answers has no entropies and no perplexity, but `series`: the curves of its objective's quantities.
    `health` has the alarms, and the band of the loss at the end; None if the files can't be read.
    """

    name: str
    status: Status
    config: RunConfig | None = None
    train: tuple[Point, ...] = ()
    validation: tuple[Point, ...] = ()
    averages: tuple[Average, ...] = ()
    last: Metric | None = None
    last_validation: Point | None = None
    sample: Sample | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    uniform_loss: float | None = None
    unigram_loss: float | None = None
    bigram_loss: float | None = None
    floor_loss: float | None = None
    shipped: tuple[str, float] | None = None
    mfu: float | None = None
    memory_bytes: float | None = None
    gpu_use: float | None = None
    machine: MachineReading | None = None
    epoch: float | None = None
    perplexity: float | None = None
    checkpoint: int | None = None
    pause_requested: bool = False
    reading: bool = False
    series: tuple[Series, ...] = ()
    health: Health | None = None
    parent: ParentCurve | None = None  # of a branch

    @property
    def objective(self) -> str:
        """What the run learns."""
        return self.config.settings.objective if self.config else PRETRAINING

    @property
    def progress(self) -> float:
        """Fraction of the run's steps that are done, 0 to 1."""
        return min(1.0, self.status.step / self.status.steps) if self.status.steps > 0 else 0.0


class RunReader:
    """Reads one run directory; each call reads only what is new. Never raises because of its content."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tail = MetricsTail(run.metrics_path)
        self.busy = False  # a thread is reading
        self.snapshot: RunSnapshot | None = None  # the last snapshot, for a watcher of several runs
        self._restart()
        self._parent: ParentCurve | None = None
        self._parent_read = False
        self._samples_mark: tuple[int, int] | None = None
        self._sample: Sample | None = None

    def _restart(self) -> None:
        self.train, self.validation = Envelope(), Envelope()
        self.last: Metric | None = None
        self.last_validation: Point | None = None
        self.memory: tuple[float | None, float | None] = (None, None)  # memory in bytes, GPU utilization
        self.machine: MachineReading | None = None
        self.recent: deque[Metric] = deque(maxlen=RECENT)
        self._averages: tuple[Average, ...] = ()
        self._points: tuple[tuple[Point, ...], tuple[Point, ...]] | None = (
            None  # cached points of `train` and `validation`
        )
        self._sampled = _sampled(self.run.metrics_path)
        self._series_reader: SeriesReader | None = None  # once the objective is known
        self._series: tuple[Series, ...] = ()
        from tui_llm.training.run.health import HealthReader  # not needed for the first paint

        self._health = HealthReader(self.run)
        self._band: LossBand | None = None

    def read(self) -> RunSnapshot:
        """Reads up to `CHUNK` more bytes of metrics and returns a snapshot, `reading` if there are more."""
        try:
            return self._read()
        except Exception as error:  # of any kind: the error is shown for this run, the other runs still work
            return RunSnapshot(self.run.name, unreadable(self.run, error))

    def _read(self) -> RunSnapshot:
        try:
            config = self.run.config()
        except UserError:
            config = None
        if not self._parent_read:  # it does not change any more
            self._parent, self._parent_read = branch.parent_curve(self.run), True
        status = self.run.status()  # before the metrics: of a worker that has ended, all of them are read
        metrics = self.tail.new(CHUNK)
        if self.tail.restarted:
            self._restart()
        settings = config.settings if config else TrainingSettings()
        objective = settings.objective
        if self._series_reader is None or self._series_reader.objective != objective:
            self._series_reader = SeriesReader(settings)
        self._series_reader.add(metrics)
        self._add(metrics)
        if self.last is not None and not self.tail.more:  # the step whose loss is shown, not one before or after it
            status = dataclasses.replace(status, step=self.last.step)
        answers, recent = objective != PRETRAINING, list(self.recent)
        facts = self.run.facts()
        self._health.add(metrics, config, facts)
        vocabulary, numbers, rate = status.vocabulary, _numbers(facts), speed(recent)
        shipped = (str(facts.get("shipped_model")), numbers["shipped_loss"]) if "shipped_loss" in numbers else None
        if metrics and not self.tail.more:
            self._averages = self._averaged(status.steps)
            self._band = self._health.band(self.train, config, status.step)
            self._series = self._series_reader.series(max(status.steps, self.last.step if self.last else 0))
        train, validation = self._losses(changed=bool(metrics))
        checkpoints = self.run.checkpoints()
        return RunSnapshot(
            name=self.run.name,
            status=status,
            config=config,
            train=train,
            validation=validation,
            averages=self._averages,
            last=self.last,
            last_validation=self.last_validation,
            sample=self._newest_sample(),
            tokens_per_second=rate,
            seconds_left=seconds_left(recent, status.steps) if status.state == "running" else None,
            uniform_loss=uniform_loss(vocabulary) if vocabulary and vocabulary > 0 and not answers else None,
            unigram_loss=numbers.get("unigram_entropy"),
            bigram_loss=numbers.get("bigram_entropy"),
            floor_loss=numbers.get("floor"),
            shipped=shipped,
            mfu=gauges.mfu(facts, rate, flops_per_token(recent)),
            memory_bytes=self.memory[0],
            gpu_use=self.memory[1],
            machine=self.machine,
            epoch=epoch(config, status.step, numbers.get("train_rows" if answers else "train_tokens")),
            perplexity=perplexity(self.last_validation[1]) if self.last_validation and not answers else None,
            checkpoint=checkpoints[-1][0] if checkpoints else None,
            pause_requested=bool(self.run.control().get("paused")),
            reading=self.tail.more,
            series=self._series,
            health=self._health.read(self._band),
            parent=self._parent,
        )

    def _losses(self, *, changed: bool) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
        """The curves of training and validation; `changed` if points were added since the last call."""
        if not self.tail.more:
            self._sampled = None
        if changed:
            self._points = None
        if self._sampled is None and self._points is None:
            self._points = self.train.points(), self.validation.points()
        return self._sampled or self._points or ((), ())

    def _add(self, metrics: Sequence[Metric]) -> None:
        for metric in metrics:
            self.train.add(metric.step, metric.loss)
            if metric.val_loss is not None:
                self.validation.add(metric.step, metric.val_loss)
                self.last_validation = (metric.step, metric.val_loss)
            if metric.memory_bytes is not None:
                self.memory = (metric.memory_bytes, metric.gpu_use)
            self.machine = metric.machine or self.machine
            self.recent.append(metric)
            self.last = metric

    def _newest_sample(self) -> Sample | None:
        try:
            stat = self.run.samples_path.stat()
        except OSError:
            return None
        mark = (stat.st_size, stat.st_mtime_ns)
        if mark != self._samples_mark:
            samples = self.run.samples()
            self._samples_mark, self._sample = mark, samples[-1] if samples else None
        return self._sample

    def _averaged(self, steps: int) -> tuple[Average, ...]:
        sums = self.train.sums()
        steps = max(steps, self.last.step if self.last else 0)
        windows = [(share, max(2, round(share * steps))) for share in SHARES]
        return tuple(Average(share, window, moving_average(sums, window)) for share, window in windows)


def unreadable(run: Run, error: Exception) -> Status:
    """Returns a status for a run whose files can't be interpreted; the traceback goes to the log."""
    log.error("run %s can't be read", run.name, exc_info=error)
    return Status("failed", problem=f"its files can't be read ({type(error).__name__}: {error})"[:300])


def _numbers(facts: dict[str, Any]) -> dict[str, float]:
    """Returns the finite numbers among the worker's facts in status.json."""
    return {key: found for key, value in facts.items() if (found := number(value)) is not None}


def _sampled(path: Path) -> tuple[tuple[Point, ...], tuple[Point, ...]] | None:
    """Returns sampled curves (training, validation) of a metrics.jsonl longer than `LONG`; None if it is shorter."""
    few = sampled_metrics(path)
    if few is None:
        return None
    train, validation = Envelope(), Envelope()
    for metric in few:
        train.add(metric.step, metric.loss)
        if metric.val_loss is not None:
            validation.add(metric.step, metric.val_loss)
    return train.points(), validation.points()


def sampled_metrics(path: Path) -> list[Metric] | None:
    """Returns some metrics at each of `PLACES` places in a metrics.jsonl longer than `LONG`; None if it is shorter."""
    size = _size(path)
    if size <= LONG:
        return None
    tail, found = MetricsTail(path), list[Metric]()
    for i in range(PLACES):
        tail.offset = i * (size - 8192) // (PLACES - 1)
        found += tail.new(8192)[1:]
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # deleted in between
        return 0


def last_written(run: Run) -> float:
    """Returns when the run last wrote metrics, status or config, in seconds since the epoch; 0 if unknown."""
    latest = 0.0
    for path in (run.metrics_path, run.path / "status.json", run.path / "config.json"):
        try:
            latest = max(latest, path.stat().st_mtime)
        except OSError:
            continue
    return latest


def most_recent() -> Run | None:
    """Returns the run to show by default: one that is being trained, or else the one written to last."""
    try:
        return max(runs(), key=lambda run: (run.alive(), last_written(run)), default=None)
    except UserError:  # the runs folder was replaced by a file: the next write reports it
        return None


def sampled_losses(path: Path, points: int = 32) -> list[float]:
    """Returns about `points` losses at even distances in a metrics.jsonl, for a sparkline.

    A large file is not read as a whole.
    """
    size = _size(path)
    if size <= CHUNK // 4:
        values = [metric.loss for metric in MetricsTail(path).new()]
        if len(values) > points:
            values = [values[i * (len(values) - 1) // (points - 1)] for i in range(points)]
        return [value for value in values if math.isfinite(value)]
    tail, values = MetricsTail(path), []
    for i in range(points):
        tail.offset = i * (size - 4096) // (points - 1)
        values += [metric.loss for metric in tail.new(4096)[1:2]]
    return [value for value in values if math.isfinite(value)]


def last_validation(path: Path) -> float | None:
    """Returns the newest validation loss in the last `CHUNK` bytes of a metrics.jsonl."""
    tail = MetricsTail(path)
    tail.offset = max(0, _size(path) - CHUNK)
    return next((metric.val_loss for metric in reversed(tail.new()) if metric.val_loss is not None), None)
