"""The worker process: `python -m tui_llm.training.worker RUN` trains one run from its last checkpoint until it ends.

It holds the run's lock while it lives. On SIGTERM or SIGINT it saves and exits; it ignores SIGHUP, so that closing the
terminal does not end it. Its state goes into the run directory; stdout and stderr are the run's log.

Under torchrun it is one of several processes (see distributed.py): rank 0 holds the lock, decides and writes.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import torch
from filelock import Timeout

from tui_llm.common import storage
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.files import remedy, write_json, write_text
from tui_llm.common.foreign_files import read_json
from tui_llm.llm.data import corpus
from tui_llm.llm.hub import hub
from tui_llm.llm.model import checkpoint, model_config
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens.tokenizer import BPETokenizer, load_folder
from tui_llm.training.plan import cost, processes
from tui_llm.training.plan.start import FOLDER
from tui_llm.training.run import changes, jsonl
from tui_llm.training.run.run import NewerRun, Run
from tui_llm.training.run.run_lock import LockLost, RunLock
from tui_llm.training.worker import (
    batch_loss,
    checkpoints,
    distributed,
    evaluations,
    measurements,
    probes,
    tensorboard,
    torch_compile,
)
from tui_llm.training.worker.distributed import Stopped
from tui_llm.training.worker.loop import Diverged, Trainer

PATIENCE = 5.0  # seconds to wait for another worker to release the lock
OUT_OF_MEMORY = "out of memory; not even one row at a time fits: start a new run with a smaller block size or model"


class Worker:
    """The state of one worker process."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.config = run.config()
        self.settings = self.config.settings
        self.ranks = distributed.of_this_process(self.config.shard)
        self.told_to_stop = False
        self.lock: RunLock | None = None  # held by rank 0 only
        self.done = False
        self.lost = ""  # how the lock was lost; empty while it is held
        self.facts: dict[str, Any] = {}
        self.shape: GPTConfig | None = None  # once known
        self.events: tensorboard.Events | None = None
        self.saved: int | None = None  # step of the newest checkpoint known to be intact
        self._last_look = 0.0
        self._save_asked: object = None  # the last request to save that was served
        self._batch_asked: object = None  # the last request to show the batch that was served

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Signal handler: asks the worker to save and exit at the next step."""
        self.told_to_stop = True

    def look_at_lock(self) -> None:
        """Ensures that no two workers train the run.

        If the lock file was deleted or replaced, this worker saves and exits. Raises `LockLost` if another worker may
        have started, since then even saving is unsafe.
        """
        if self.lost or self.lock is None or not self.lock.lost:
            return
        self.lost = (
            f"the lock of run {self.run.name}, {self.lock.path}, was deleted or replaced while it was being trained"
        )
        self.told_to_stop = True
        if not self.lock.alone:
            raise LockLost(f"{self.lost}; nothing more is written, since another worker may be training it")
        log(f"{self.lost}; saving, then ending")

    def say(self, state: str, message: str = "") -> None:
        """Writes the status and a log line; only on rank 0."""
        if not self.ranks.first:
            return
        log(f"{state} {message}")  # log first: on a full disk, writing the status may fail
        self.run.write_status(state, message, **self.facts)

    def prepare(self, message: str) -> None:
        """Reports the progress of the preparation at most twice a second.

        Raises `Stopped` if the worker is told to stop.
        """
        self.look_at_lock()
        if self.told_to_stop or self.run.control().get("stop"):
            raise Stopped
        if self.ranks.first and time.monotonic() - self._last_look > 0.5:
            self._last_look = time.monotonic()
            self.run.write_status("starting", message, **self.facts)

    def work(self) -> None:
        """Runs everything, from loading the corpus to the last checkpoint.

        Raises `UserError`, `Diverged` or `Stopped`.
        """
        run, s = self.run, self.settings
        processes.check(s, self.ranks.world, shard=self.ranks.shard)
        self.ranks.connect(self.config.device)
        with self.ranks.in_turn():
            place = self.ranks.choose(self.config.device)
            self.facts |= {"device": str(place), "processes": self.ranks.world}
            self.say("starting", "opening the vocabulary")
            start = run.path / FOLDER if s.from_model else None
            tokenizer = load_folder(start, s.from_model) if start else hub.training_tokenizer(s.tokenizer)
            text = corpus.load(
                self.config.corpus,
                tokenizer,
                s.validation_fraction,
                block_size=s.block_size,
                progress=self.prepare,
            )
            self._check_corpus(text.digest)
        torch.manual_seed(s.seed)
        shape = model_config.read_config(start) if start else cost.shape(s, tokenizer.size)
        self.shape = dataclasses.replace(shape, dropout=s.dropout)
        model = GPT(self.shape)
        found = checkpoints.load_newest(run, model) if self.ranks.first else None  # broadcast to the others below
        if start and not found and self.ranks.first:
            model.load_state_dict(checkpoint.load(start).state_dict())
        _, state, told = found or (0, None, "")
        done = self.ranks.number(found[0] if found else 0)
        self.saved = done or None
        self.facts |= {"vocabulary": tokenizer.size, "parameters": model.config.parameters(),
                       "unigram_entropy": text.unigram_entropy, "bigram_entropy": text.bigram_entropy,
                       "train_tokens": len(text.train)}  # fmt: skip
        if text.floor is not None:
            self.facts["floor"] = text.floor
        model.used = tokenizer.size  # rows that pad the embedding of `from_model` are no tokens
        trainer = Trainer(model, text, s, place, self.ranks)
        self.facts["arithmetic"] = trainer.precision
        if done:
            checkpoints.restore(trainer, state)
        trainer.changes = changes.read(run)
        gauges = measurements.Gauges(trainer)
        if self.ranks.first:
            if done and not told:  # a killed worker may have left more than `KEEP`
                checkpoints.drop_old(run)
            jsonl.cut_back(run.path, done)
            if self.config.tensorboard:
                told += self._begin_events(done)
            self.facts |= gauges.facts | measurements.shipped_loss(run, trainer, tokenizer, self.prepare)
        if not done:
            view = checkpoints.gathered(trainer)
            if self.ranks.first:
                probes.begin(run, view, tokenizer)
        if done < s.steps and self.ranks.world == 1 and torch_compile.wanted(s.compile, place):
            self.say("starting", "compiling the training step; this takes a minute the first time")
            told += torch_compile.compile_step(trainer, done + 1)
        self.say("running", told)
        step = done
        with self._metrics() as metrics:
            steps = trainer.steps(done)
            while self._obey(trainer, tokenizer, step):
                record = next(steps, None)
                if record is None:
                    break
                step = record.step
                self.look_at_lock()
                line = {**dataclasses.asdict(record), "time": round(time.time(), 3), **gauges.line(record)}
                jsonl.append(metrics, line)
                if self.events is not None:
                    self.events.add(line)
                if record.val_loss is not None:
                    view = checkpoints.gathered(trainer)
                    for look in evaluations.LOOKS if self.ranks.first else ():
                        look(run, view, tokenizer, record)
                if step % s.checkpoint_every == 0 or step == s.steps:
                    if self.ranks.first:
                        storage.sync(metrics)  # metrics must reach the disk before their checkpoint
                    self.save(trainer, tokenizer, step)
                if self.ranks.first and not self.ranks.shard and gauges.due():
                    self.say("running", "measuring what this machine can do, once")
                    gauges.measure()
                    self.facts |= gauges.facts
                    self.say("running", told)
        self.save(trainer, tokenizer, step)
        if self.events is not None:
            self.events.close()
        self.ranks.leave()
        if self.lost and step < s.steps:
            self.say("failed", f"{self.lost}; saved at step {step:,} of {s.steps:,}: resume it")
        elif step >= s.steps:
            self.done = True
            self.say("finished", f"all {s.steps:,} steps are done")
        else:
            self.say(
                "stopped",
                f"saved at step {step:,} of {s.steps:,}" if step else "stopped before the first step",
            )

    def save(self, trainer: Trainer, tokenizer: BPETokenizer, step: int) -> None:
        """Saves a checkpoint, unless `step` is 0, which the seed reproduces, or already saved."""
        if step and step != self.saved:
            if self.events is not None:
                self.events.flush()
            self.look_at_lock()
            checkpoints.save(self.run, trainer, tokenizer, step)
            self.saved = step

    def _metrics(self) -> BinaryIO:
        """Opens the metrics file for appending; on processes other than rank 0, the null device."""
        if self.ranks.first:
            return storage.open_file(self.run.metrics_path, "ab", buffering=0)
        return Path(os.devnull).open("ab", buffering=0)

    def _begin_events(self, done: int) -> str:
        """Opens the TensorBoard event files. Returns a message if that fails: it is no reason to end the run."""
        try:
            self.events = tensorboard.begin(self.run, done)
            return ""
        except (UserError, OSError) as error:
            return f"no event files: {error}. "

    def out_of_memory(self) -> str:
        """Returns the message for a run that ran out of memory.

        A batch size that should fit goes into the status facts.
        """
        s, fits = self.settings, None
        if self.shape is not None:
            fits = cost.fitting(s, self.shape, measurements.available(self.ranks.choose(self.config.device)))
        if fits is None:
            return OUT_OF_MEMORY
        self.facts["fits"] = fits
        return (
            f"out of memory at batch {s.batch_size}: try --batch-size {fits[0]} --grad-accumulation-steps {fits[1]} "
            "(the same global batch)"
        )

    def _check_corpus(self, digest: str) -> None:
        """Records the corpus's digest at first. Raises `UserError` if a resumed run's corpus has another one."""
        path = self.run.path / "corpus.json"
        if path.exists():
            before = read_json(path)
            if not isinstance(before, dict) or before.get("digest") != digest:
                raise UserError(
                    f"the corpus of run {self.run.name} has changed since it began; put the old text back, or start a new run"
                )
        else:
            write_json(path, {"digest": digest})

    def _obey(self, trainer: Trainer, tokenizer: BPETokenizer, step: int) -> bool:
        """Serves the requests in control.json between `step` and the next. Returns False if the worker should stop.

        A request may save, pause (after saving; sleeps until it ends), or change the learning rate. Rank 0 decides and
        tells the others, so that all do the same at the same step.
        """
        if not self.ranks.first:
            return self._follow(trainer, tokenizer, step)
        go = self._decide(trainer, tokenizer, step)
        self.ranks.tell(distributed.GO if go else distributed.STOP)
        return go

    def _follow(self, trainer: Trainer, tokenizer: BPETokenizer, step: int) -> bool:
        """The part of `_obey` on the other ranks: follows rank 0's orders."""
        while True:
            order, since, rate = self.ranks.tell(distributed.GO)
            if order == distributed.SAVE:
                self.save(trainer, tokenizer, step)
            elif order == distributed.CHANGE:
                trainer.changes = [*trainer.changes, changes.Change(since, rate, 0)]
            else:
                return order == distributed.GO

    def _decide(self, trainer: Trainer, tokenizer: BPETokenizer, step: int) -> bool:
        control = self.run.control()
        if control.get("paused") and not self.told_to_stop:
            self.ranks.tell(distributed.SAVE)
            self.save(trainer, tokenizer, step)
            self.say("paused", f"paused at step {step:,}")
            while control.get("paused") and not control.get("stop") and not self.told_to_stop:
                self._show_batch(trainer, tokenizer, step, control)
                self.look_at_lock()
                time.sleep(0.1)
                control = self.run.control()
            if not control.get("stop") and not self.told_to_stop:
                self.say("running")
        if control.get("stop") or self.told_to_stop:
            return False
        self._show_batch(trainer, tokenizer, step, control)
        if control.get("save") not in (None, self._save_asked):
            self._save_asked = control["save"]
            self.ranks.tell(distributed.SAVE)
            self.save(trainer, tokenizer, step)
            self.say("running", f"saved at step {step:,}, as asked")
        if step < self.settings.steps:
            changed = changes.take(self.run, trainer.changes, step + 1, control)
            if changed is not trainer.changes:
                trainer.changes = changed
                self.ranks.tell(distributed.CHANGE, changed[-1].step, changed[-1].learning_rate)
                self.say("running", f"learning rate {changed[-1].learning_rate:g} at most, from step {step + 1:,} on")
        return True

    def _show_batch(self, trainer: Trainer, tokenizer: BPETokenizer, step: int, control: dict[str, Any]) -> None:
        if self.ranks.shard:
            return  # no process has the full model; it is gathered at evaluations only
        self._batch_asked = batch_loss.answer(self.run, trainer, tokenizer, step, control, self._batch_asked)


def log(line: str) -> None:
    """Writes a line to stdout, the run's log.

    Control characters in it, for example from file names, are made visible.
    """
    with suppress(OSError):  # a full disk: the status reports it
        os.write(1, f"{time.strftime('%F %T')} {visible(line, newlines=True)}\n".encode())


def main(arguments: list[str]) -> int:
    """Trains the run named on the command line.

    Returns the exit status: 2 for an invalid call or run, 3 if the run is locked.
    """
    if len(arguments) != 1:
        print("usage: python -m tui_llm.training.worker RUN_DIRECTORY", file=sys.stderr)
        return 2
    run = Run(Path(arguments[0]))
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        worker = Worker(run)
    except UserError as error:
        log(f"failed {error}")
        if not isinstance(error, NewerRun):  # don't change the run of a later version
            with suppress(UserError):
                run.write_status("failed", str(error))
        return 2
    # before taking the lock: a process that sees it held may send a signal
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, worker.stop)
    torch.set_flush_denormal(True)
    if not worker.ranks.first:
        return work(worker)
    try:
        with run.held(PATIENCE) as lock:
            worker.lock = lock
            return work(worker)
    except Timeout:
        log(f"run {run.name} is being trained by another process")
        return 3
    except OSError as error:  # the lock can't be created
        log(f"failed {_cannot_write(error, run)}")
        return 1


def work(worker: Worker) -> int:
    """Trains and records in the status how that ended. Returns the exit status. Rank 0 must hold the run's lock."""
    run = worker.run
    try:
        if worker.ranks.first:
            write_text(run.path / "pid", str(os.getpid()))
            checkpoints.clean(run)
        worker.work()
        return 1 if worker.lost and not worker.done else 0
    except Stopped:
        if worker.lost:
            worker.say("failed", f"{worker.lost}; resume it")
            return 1
        worker.say("stopped", "stopped before the first step")
        return 0
    except LockLost as error:  # another worker may own the files now
        log(f"failed {error}")
        worker.ranks.fail(str(error))
        return 3
    except UserError as error:
        message = str(error)
    except Diverged as error:
        message = str(error)
        if checkpoints.drop_bad(run, error.bad):  # saved before the divergence was noticed
            message += f". Checkpoint {error.bad:,} contains those weights: it was deleted, the one before is kept"
    except (torch.OutOfMemoryError, MemoryError):
        message = worker.out_of_memory()
    except OSError as error:
        message = _cannot_write(error, run)
    except Exception as error:  # any error: the status reports it; the traceback goes to the log
        log(traceback.format_exc())
        # torch's CPU allocator raises a plain RuntimeError.
        message = worker.ranks.lost(error) or (
            worker.out_of_memory()
            if "can't allocate memory" in str(error)
            else f"{type(error).__name__}: {error} (see {run.log_path})"
        )
    try:
        if not worker.ranks.first:
            log(f"process {worker.ranks.rank}: {message}")
            worker.ranks.fail(message)
        worker.say("failed", " ".join(message.split()))
    except UserError as error:
        log(f"and: {error}")
    return 1


def _cannot_write(error: OSError, run: Run) -> str:
    return f"{error.strerror or error} ({error.filename or run.path}); {remedy(error)}, then resume"
