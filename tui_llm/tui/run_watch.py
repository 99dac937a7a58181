"""Looks at a run while it is trained. A reader turns its directory into frozen snapshots; a watcher posts them.

Nothing here draws, and nothing is kept about a run that is not in its directory: close the program, open it again,
and the same snapshot is there.
"""

from __future__ import annotations

import itertools
import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual import work
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

from tui_llm.errors import UserError
from tui_llm.llm.units import perplexity, uniform_loss
from tui_llm.training import gauges, launch
from tui_llm.training.metrics import Metric, MetricsTail
from tui_llm.training.run import Run, RunConfig, Sample, Status, runs
from tui_llm.tui.curve import Average, Envelope, Point, moving_average

CHUNK = 1 << 20  # bytes of metrics read at a time: some 7,000 steps
LONG = 16 * CHUNK  # bytes of metrics that take so long to read that a glimpse of them comes first
GLIMPSES = 256  # places where such a file is looked at
SHARES = (0.01, 0.05)  # of a run's steps, that its training loss is averaged over
RECENT = 50  # steps that speed and time left are estimated from
INTERVAL = 1.0  # seconds between two looks: half of them cost a run half as much


def speed(recent: Iterable[Metric]) -> float | None:
    """Tokens per second over `recent` steps of equal size: the harmonic mean. None where there is none to tell."""
    rates = [m.tokens_per_second for m in recent if math.isfinite(m.tokens_per_second) and m.tokens_per_second > 0]
    return statistics.harmonic_mean(rates) if rates else None


def seconds_left(recent: Sequence[Metric], steps: int) -> float | None:
    """How long the steps up to `steps` will take, from the time that `recent` steps took, evaluations and checkpoints
    included, pauses not. None where that can't be told."""
    gaps = [b.time - a.time for a, b in itertools.pairwise(recent) if b.step == a.step + 1]
    gaps = [gap for gap in gaps if math.isfinite(gap) and gap >= 0]
    if not gaps:
        return None
    pause = max(60.0, 50 * statistics.median(gaps))
    gaps = [gap for gap in gaps if gap <= pause] or gaps
    return max(0, steps - recent[-1].step) * sum(gaps) / len(gaps)


def epoch(config: RunConfig | None, step: int, train_tokens: float | None) -> float | None:
    """Tokens trained on up to `step`, as a multiple of the corpus's training tokens."""
    if config is None or train_tokens is None or train_tokens <= 0:
        return None
    settings = config.settings
    return step * settings.batch_size * settings.block_size * settings.accumulation / train_tokens


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """What a run's directory said at one moment. `train` and `validation` are curves of bounded length (see
    `Envelope`), `averages` the moving averages of `train`, the narrowest first; `uniform_loss` is ln V, `unigram_loss`
    and `bigram_loss` the corpus's entropies, `floor_loss` its known floor and `shipped` a shipped model's name and loss
    on the run's held-out rows, in nats per token; `mfu` is the share of the machine's peak that the run uses (None until
    that is measured), `memory_bytes` what it last held, `gpu_use` the GPU's busy share; `epoch` counts how
    often the corpus was seen (tokens trained on ÷ its training tokens), `perplexity` is e^(last validation loss);
    `reading` is true while older metrics are still being read: the curves of a very long run are then drawn from a
    glimpse of it, a few steps from each of `GLIMPSES` places."""

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
    epoch: float | None = None
    perplexity: float | None = None
    checkpoint: int | None = None
    pause_asked: bool = False
    reading: bool = False

    @property
    def progress(self) -> float:
        return min(1.0, self.status.step / self.status.steps) if self.status.steps > 0 else 0.0


class RunReader:
    """Reads one run directory, each time only what is new in it. Never raises on what it finds there."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tail = MetricsTail(run.metrics_path)
        self.busy = False  # a thread is at it
        self.snapshot: RunSnapshot | None = None  # what a watcher that compares runs has last read
        self._restart()
        self._samples_mark: tuple[int, int] | None = None
        self._sample: Sample | None = None

    def _restart(self) -> None:
        self.train, self.validation = Envelope(), Envelope()
        self.last: Metric | None = None
        self.last_validation: Point | None = None
        self.memory: tuple[float | None, float | None] = (None, None)  # bytes held, the GPU's busy share
        self.recent: deque[Metric] = deque(maxlen=RECENT)
        self._averages: tuple[Average, ...] = ()
        self._points: tuple[tuple[Point, ...], tuple[Point, ...]] | None = (
            None  # of `train` and `validation`, once made
        )
        self._glimpse = _glimpse(self.run.metrics_path)

    def read(self) -> RunSnapshot:
        """Reads on, at most `CHUNK` bytes of metrics; `reading` says that there is more."""
        metrics = self.tail.new(CHUNK)
        if self.tail.restarted:
            self._restart()
        for metric in metrics:
            self.train.add(metric.step, metric.loss)
            if metric.val_loss is not None:
                self.validation.add(metric.step, metric.val_loss)
                self.last_validation = (metric.step, metric.val_loss)
            if metric.memory_bytes is not None:
                self.memory = (metric.memory_bytes, metric.gpu_use)
            self.recent.append(metric)
            self.last = metric
        status = self.run.status()
        try:
            config = self.run.config()
        except UserError:
            config = None
        recent = list(self.recent)
        said = self.run.facts()
        vocabulary, facts, rate = status.vocabulary, _numbers(said), speed(recent)
        shipped = (str(said.get("shipped_model")), facts["shipped_loss"]) if "shipped_loss" in facts else None
        if metrics and not self.tail.more:
            self._averages = self._averaged(status.steps)
        if not self.tail.more:
            self._glimpse = None
        if metrics:
            self._points = None
        if self._glimpse is None and self._points is None:
            self._points = self.train.points(), self.validation.points()
        train, validation = self._glimpse or self._points or ((), ())
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
            uniform_loss=uniform_loss(vocabulary) if vocabulary and vocabulary > 0 else None,
            unigram_loss=facts.get("unigram_entropy"),
            bigram_loss=facts.get("bigram_entropy"),
            floor_loss=facts.get("floor"),
            shipped=shipped,
            mfu=gauges.mfu(said, rate),
            memory_bytes=self.memory[0],
            gpu_use=self.memory[1],
            epoch=epoch(config, status.step, facts.get("train_tokens")),
            perplexity=perplexity(self.last_validation[1]) if self.last_validation else None,
            checkpoint=checkpoints[-1][0] if checkpoints else None,
            pause_asked=bool(self.run.control().get("paused")),
            reading=self.tail.more,
        )

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


def _numbers(said: dict[str, Any]) -> dict[str, float]:
    """The finite numbers in what the worker wrote into its status.json."""
    return {
        key: float(value)
        for key, value in said.items()
        if isinstance(value, int | float) and abs(value) < sys.float_info.max
    }


def _glimpse(path: Path) -> tuple[tuple[Point, ...], tuple[Point, ...]] | None:
    """Curves of the training and validation loss of a very long metrics.jsonl, at some places of it; None where it is not long."""
    size = path.stat().st_size if path.is_file() else 0
    if size <= LONG:
        return None
    tail, train, validation = MetricsTail(path), Envelope(), Envelope()
    for i in range(GLIMPSES):
        tail.offset = i * (size - 8192) // (GLIMPSES - 1)
        for metric in tail.new(8192)[1:]:
            train.add(metric.step, metric.loss)
            if metric.val_loss is not None:
                validation.add(metric.step, metric.val_loss)
    return train.points(), validation.points()


def last_sign(run: Run) -> float:
    """When the run last wrote something, in seconds since the epoch; 0 where that can't be told."""
    latest = 0.0
    for path in (run.metrics_path, run.path / "status.json", run.path / "config.json"):
        try:
            latest = max(latest, path.stat().st_mtime)
        except OSError:
            continue
    return latest


def most_recent() -> Run | None:
    """The run to show where nobody chose one: one that is being trained, else the one that last wrote something."""
    return max(runs(), key=lambda run: (run.alive(), last_sign(run)), default=None)


def loss_glimpse(path: Path, points: int = 32) -> list[float]:
    """About `points` losses spread evenly over a metrics.jsonl, without reading it all: enough for a sparkline."""
    size = path.stat().st_size if path.is_file() else 0
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
    """The newest validation loss in the last megabyte of a metrics.jsonl."""
    tail = MetricsTail(path)
    tail.offset = max(0, path.stat().st_size - CHUNK) if path.is_file() else 0
    return next((metric.val_loss for metric in reversed(tail.new()) if metric.val_loss is not None), None)


class RunWatcher(Widget):
    """Posts `Seen` for the watched run and those compared with it: at once, then twice a second while one of them is
    alive. While nothing is alive it does nothing at all; `look` takes another look."""

    DEFAULT_CSS = "RunWatcher { display: none; }"

    class Seen(Message):
        """`snapshot` is None where there is no run at all; `others` are the runs compared with it."""

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
        """Reads `others` too from now on."""
        before = {reader.run.name: reader for reader in self._compared}
        if [run.name for run in others] != list(before):
            self._compared = tuple(before.get(run.name) or RunReader(run) for run in others)
            self.look()

    @work(thread=True, exclusive=True, group="find")
    def find(self) -> None:
        """Watches the most recent run, unless the one that is watched may well stay: nobody trains another."""
        watched, found = self.run_watched, most_recent()
        stays = watched is not None and watched.exists()
        if found and stays and (not found.alive() or (watched and watched.alive())):
            found = watched
        self.post_message(self.Found(watched, found))

    def on_run_watcher_found(self, message: Found) -> None:
        message.stop()
        if message.instead_of is not self.run_watched:
            return  # someone chose a run meanwhile
        if message.run is None or message.run is not self.run_watched:
            self.follow(message.run)
        else:
            self.look()

    def look(self) -> None:
        """Takes a look now, unless one is being taken."""
        reader = self._reader
        if reader and not reader.busy:
            reader.busy = True
            self._look(reader, self._compared)

    @work(thread=True, group="look")
    def _look(self, reader: RunReader, compared: tuple[RunReader, ...]) -> None:
        try:
            launch.reap()
            shown = -math.inf  # what was read first is shown at once: of a long run, a glimpse
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
            self.look()  # other runs were chosen while this look was taken
        if self._timer and any(seen.status.alive for seen in (snapshot, *others)):
            self._timer.resume()
        else:
            self._rest()
            if self._snapshot and self._snapshot.status.alive:
                self.set_timer(2 * INTERVAL, self.look)  # its process ends only now: once more, to reap it
        if (snapshot, others) != (self._snapshot, self._others):
            self._snapshot, self._others = snapshot, others
            self.post_message(self.Seen(snapshot, others))

    def _rest(self) -> None:
        if self._timer:
            self._timer.pause()
