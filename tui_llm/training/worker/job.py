"""A training job: one worker's part of a run, from loading the inputs to the last checkpoint."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.common.memory import is_short
from tui_llm.llm.model import checkpoint, device, native_training
from tui_llm.llm.model.model import GPT
from tui_llm.training.plan import processes
from tui_llm.training.run import changes, health, jsonl, matrix_statistics
from tui_llm.training.run.alarms import AlarmReader
from tui_llm.training.run.metrics import Metric, metric_line
from tui_llm.training.run.settings import PRETRAINING, TrainingSettings
from tui_llm.training.worker import (
    branch,
    checkpoints,
    evaluations,
    head_readings,
    inputs,
    measurements,
    objectives,
    pin_readings,
    tensorboard,
    torch_compile,
)
from tui_llm.training.worker.answers import AnswerTrainer
from tui_llm.training.worker.clock import TimeBudget
from tui_llm.training.worker.contention import ContentionWatch
from tui_llm.training.worker.inputs import Inputs
from tui_llm.training.worker.matrix_recorder import MatrixRecorder
from tui_llm.training.worker.requests import Requests
from tui_llm.training.worker.row_places import RowPlaces
from tui_llm.training.worker.worker import Worker, log


def train(worker: Worker) -> None:
    """Trains the worker's run from its newest checkpoint until it is done or told to stop.

    Raises `UserError`, `Diverged` or `Stopped`.
    """
    s, ranks = worker.settings, worker.ranks
    processes.check(s, ranks.world, shard=ranks.shard)
    ranks.connect(worker.config.device)
    loaded = inputs.load(worker)
    model = inputs.random_model(worker, loaded)
    found = checkpoints.load_newest(worker.run, model) if ranks.first else None  # broadcast to the others below
    branched = ranks.broadcast_int(int(not found and worker.config.parent_step > 0))
    if branched and ranks.first:
        found = branch.begin(worker, model)
    if loaded.start and not found and ranks.first:
        model.load_state_dict(checkpoint.load(loaded.start).state_dict())
    step, state, message = found or (0, None, "")
    job = Job(worker, loaded, model, ranks.broadcast_int(step), state)
    if branched:
        job.saved = None
        job.save(job.step)  # so that the branch no longer depends on its parent
    message = job.prepare(message)
    job.run_steps(message)
    job.end()


class Job:
    """The trainer of a run with what is recorded beside it, after `done` steps. `step` is the last one that is recorded whole."""

    def __init__(self, worker: Worker, loaded: Inputs, model: GPT, done: int, state: dict[str, Tensor] | None) -> None:
        self.worker, self.run, self.ranks = worker, worker.run, worker.ranks
        self.tokenizer = loaded.tokenizer
        self.step = done
        self.saved: int | None = done or None  # step of the newest checkpoint known to be intact
        self.events: tensorboard.Events | None = None
        model.used = loaded.tokenizer.size  # rows that pad the embedding of `from_model` are no tokens
        if native_training.must_compile():
            worker.report("starting", "compiling the training step, once on this machine")
        self.trainer = objectives.trainer(loaded, model, self.settings, self.ranks)
        worker.facts |= {"arithmetic": self.trainer.arithmetic, **objectives.facts(self.trainer)}
        if isinstance(self.trainer, AnswerTrainer):
            worker.report("starting", self.trainer.rows_text)
        if done:
            checkpoints.restore(self.trainer, state)
        self.trainer.changes = changes.read(self.run)
        self.time = TimeBudget(worker, self.trainer, done) if self.settings.minutes else None
        worker.clock = self.time.clock if self.time else None
        self.gauges = measurements.Gauges(self.trainer, worker.config.device)
        self.alarms: AlarmReader | None = None  # of rank 0
        self._row_places = RowPlaces(worker, loaded, self.trainer)
        self.requests = Requests(worker, self.trainer, self.tokenizer, self.save)

    @property
    def settings(self) -> TrainingSettings:
        """The run's settings; with a time budget, the number of steps changes during the run."""
        return self.worker.settings

    def prepare(self, message: str) -> str:
        """Brings the run's files to `step`, and measures and compiles what is needed before the next one.

        Returns `message`, extended by what went wrong without being a reason to end the run.
        """
        worker, done = self.worker, self.step
        message = device.note(worker.config.device, self.trainer.device, self.settings.precision) + message
        if self.ranks.first:
            if done and not message:  # a killed worker may have left more than `KEEP`
                checkpoints.drop_old(self.run, done)
            jsonl.drop_after(self.run.path, done)
            if worker.config.tensorboard:
                message += self._begin_events()
            worker.facts |= self.gauges.facts
            if self.settings.objective == PRETRAINING:
                within = min(measurements.SHIPPED_WITHIN, self.time.spare if self.time is not None else math.inf)
                worker.facts |= measurements.shipped_loss(
                    self.run, self.trainer, self.tokenizer, worker.report_progress, within
                )
        if not done:
            view = checkpoints.gathered(self.trainer)
            if self.ranks.first:
                pin_readings.begin(self.run, view, self.tokenizer)
                head_readings.begin(self.run, view, self.tokenizer)
        if self.ranks.first:
            self.alarms = health.begin(self.run, self.settings, worker.facts, self._row_places)
        alone = self.ranks.world == 1 and self.settings.objective == PRETRAINING
        if done < self.settings.steps and alone and torch_compile.wanted(self.settings.compile, self.trainer.device):
            worker.report("starting", "compiling the training step; this takes a minute the first time")
            message += torch_compile.compile_step(self.trainer, done + 1)
            worker.facts["arithmetic"] = self.trainer.arithmetic
        return message + (checkpoints.other_arithmetic(self.run, self.trainer, done) if done else "")

    def run_steps(self, message: str) -> None:
        """Runs and records the steps until the run is done or told to stop. `message` is the status while running."""
        self.worker.report("running", message)
        contention = ContentionWatch(self.run.name)
        for metric in self.steps():
            if not self.ranks.first or self.ranks.shard:
                continue
            if wrong := self.gauges.discard_peak(metric):
                log(wrong)
                del self.worker.facts["peak_flops"]
                self.worker.report("running", message)
            if self.trainer.device.type == "cpu" and contention.changed():
                self.worker.notice = contention.line
                self.worker.report("running", message)
            spare = self.time is None or self.time.spare > measurements.PEAK_TAKES
            if spare and self.gauges.due(metric):
                self._measure_peak(message)

    def steps(self) -> Iterator[Metric]:
        """Runs and records the steps until the run is done or told to stop; yields the metrics of each after that."""
        if self.ranks.first and not self.ranks.shard:
            self.trainer.matrices = MatrixRecorder(self.trainer.model, self.settings.steps)
        with self._metrics() as metrics, self._sampling():
            steps = self.trainer.steps(self.step)
            while True:
                try:
                    if not self.requests.serve(self.step):
                        break
                    began = time.monotonic()
                    metric = next(steps, None)
                    if metric is None:
                        break
                    self.worker.check_lock()
                    self._record(metrics, metric)
                except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                    if is_short(error):  # also of a request, a sample or an evaluation
                        self._save_after_failure()
                    raise
                if self.time is not None:
                    self.time.after(metric, time.monotonic() - began)
                yield metric

    def _record(self, metrics: BinaryIO, metric: Metric) -> None:
        """Writes what is due after a step: its metrics, an evaluation, a checkpoint."""
        line = metric_line(self.gauges.complete(metric))
        jsonl.append(metrics, line)
        if self.trainer.matrices is not None and (found := self.trainer.matrices.take()) is not None:
            with storage.open_file(self.run.matrices_path, "ab", buffering=0) as file:
                jsonl.append(file, matrix_statistics.line(found))
        if self.events is not None:
            self.events.add(line)
        if self.alarms is not None and (new := self.alarms.add([metric])):
            health.record(self.run, new)
        if self.alarms is not None and metric.val_loss is not None:
            health.record(self.run, self.alarms.updates())
        if metric.val_loss is not None:
            self.record_evaluation(metric)
        self.step = metric.step  # recorded whole: a run that is resumed after it misses no line
        if metric.step % self.settings.checkpoint_every == 0 or metric.step == self.settings.steps:
            self.save(metric.step)

    def record_evaluation(self, metric: Metric) -> None:
        """Writes what an evaluation writes beside the validation loss, with the weights that each recorder is for."""
        average = self.trainer.average is not None
        passes = (evaluations.RECORDERS, evaluations.STEP_RECORDERS)
        for recorders in passes if average else (sum(passes, ()),):
            evaluated = self.trainer.evaluated_weights() if recorders is passes[0] else contextlib.nullcontext()
            with evaluated:
                view = checkpoints.gathered(self.trainer)
                for record in recorders if self.ranks.first else ():
                    record(self.run, view, self.tokenizer, metric)

    def _sampling(self) -> contextlib.AbstractContextManager[object]:
        """Reads the machine's gauges while it lasts; on processes other than rank 0, nothing."""
        return self.gauges.sampler if self.ranks.first else contextlib.nullcontext()

    def _save_after_failure(self) -> None:
        """Saves the last step that is recorded, if the weights are still those after it."""
        average = self.trainer.average
        if self.trainer.done != self.step or self.ranks.world > 1:  # the others are not at this point
            return
        if average is not None and average.exchanged:  # perhaps not all of the weights
            return
        self.trainer.model.zero_grad(set_to_none=True)
        with suppress(UserError, RuntimeError):  # the message of the failure is more useful
            self.save(self.step)

    def _measure_peak(self, message: str) -> None:
        self.worker.report("running", "measuring this machine's peak FLOP/s")
        if problem := self.gauges.measure():
            log(problem)
        self.worker.facts |= self.gauges.facts
        self.worker.report("running", message)

    def save(self, step: int) -> None:
        """Saves a checkpoint, unless `step` is 0, which the seed reproduces, or already saved."""
        if step and step != self.saved:
            if self.events is not None:
                self.events.flush()
            self.worker.check_lock()
            seconds = self.time.clock.used if self.time is not None else None
            for log_ in (self.run.metrics_path, self.run.matrices_path) if self.ranks.first else ():
                if log_.exists():
                    storage.sync_path(log_)  # what leads to a checkpoint reaches the disk before it
            checkpoints.save(self.run, self.trainer, self.tokenizer, step, seconds)
            self.saved = step

    def end(self) -> None:
        """Saves the last step and reports how the run ended."""
        worker, step, steps = self.worker, self.step, self.settings.steps
        self.save(step)
        if self.alarms is not None:
            health.record(self.run, self.alarms.updates())
        if self.events is not None:
            self.events.close()
        self.ranks.disconnect()
        if worker.lost and step < steps:
            worker.report("failed", f"{worker.lost}; saved at step {step:,} of {steps:,}: resume it")
        elif step >= steps:
            worker.done = True
            time_used = f", {self.time.line}" if self.time is not None else ""
            worker.report("finished", f"{'the step is' if steps == 1 else f'all {steps:,} steps are'} done{time_used}")
        else:
            worker.report(
                "stopped", f"saved at step {step:,} of {steps:,}" if step else "stopped before the first step"
            )

    def _metrics(self) -> BinaryIO:
        """Opens the metrics file for appending; on processes other than rank 0, the null device."""
        if self.ranks.first:
            return storage.open_file(self.run.metrics_path, "ab", buffering=0)
        return Path(os.devnull).open("ab", buffering=0)

    def _begin_events(self) -> str:
        """Opens the TensorBoard event files. Returns a message if that fails: it is no reason to end the run."""
        try:
            self.events = tensorboard.begin(self.run, self.step)
            return ""
        except (UserError, OSError) as error:
            return f"no event files: {error}. "
