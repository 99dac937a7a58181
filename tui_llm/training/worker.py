"""`python -m tui_llm.training.worker RUN`: trains one run, from its last checkpoint on, until it is done or told to stop.

It holds the run's lock as long as it lives. SIGTERM: save, then leave. SIGHUP is ignored: the terminal may go.
Whatever it has to say goes into the run directory; stdout and stderr are the run's log.
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
from typing import Any

import torch
from filelock import Timeout

from tui_llm.display import visible
from tui_llm.errors import UserError
from tui_llm.files import read_json, write_aside, write_json
from tui_llm.llm import checkpoint, corpus, device, hub
from tui_llm.llm.model import GPT
from tui_llm.llm.tokenizer import BPETokenizer, load_folder
from tui_llm.training import changes, checkpoints, cost, evaluations, jsonl
from tui_llm.training.loop import Diverged, Trainer
from tui_llm.training.run import Run
from tui_llm.training.start import FOLDER

PATIENCE = 5.0  # seconds that another worker has to give the lock back
OUT_OF_MEMORY = "out of memory; try a smaller batch size, block size or model"


class Stopped(Exception):
    """Told to stop before the first step."""


class Worker:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.config = run.config()
        self.settings = self.config.settings
        self.told_to_stop = False
        self.facts: dict[str, Any] = {}
        self.saved: int | None = None  # the step of the newest checkpoint that is known to be whole
        self._last_look = 0.0
        self._save_asked: object = None  # the last request to save that was met

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        self.told_to_stop = True

    def say(self, state: str, message: str = "") -> None:
        log(f"{state} {message}")  # first: a full disk may refuse the other
        self.run.write_status(state, message, **self.facts)

    def prepare(self, message: str) -> None:
        """Says how the preparation goes, a few times a second. Raises `Stopped` where it is told to stop."""
        if self.told_to_stop or self.run.control().get("stop"):
            raise Stopped
        if time.monotonic() - self._last_look > 0.5:
            self._last_look = time.monotonic()
            self.run.write_status("starting", message, **self.facts)

    def work(self) -> None:
        """Everything, from reading the corpus to the last checkpoint. Raises `UserError`, `Diverged` or `Stopped`."""
        run, s = self.run, self.settings
        place = device.choose(self.config.device)
        self.facts["device"] = str(place)
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
        shape = checkpoint.read_config(start) if start else cost.shape(s, tokenizer.size)
        model = GPT(dataclasses.replace(shape, dropout=s.dropout))
        found = checkpoints.load_newest(run, model)
        if start and not found:
            model.load_state_dict(checkpoint.load(start).state_dict())
        done, state, told = found or (0, None, "")
        self.saved = done if found else None
        self.facts |= {"vocabulary": tokenizer.size, "parameters": model.config.parameters(),
                       "unigram_entropy": text.unigram_entropy, "bigram_entropy": text.bigram_entropy,
                       "train_tokens": len(text.train)}  # fmt: skip
        if text.floor is not None:
            self.facts["floor"] = text.floor
        model.used = tokenizer.size  # what pads a started-from model's embedding is no token
        trainer = Trainer(model, text, s, place)
        self.facts["precision"] = trainer.precision
        if state is not None:
            checkpoints.restore(trainer, state)
        trainer.changes = changes.read(run)
        jsonl.cut_back(run.path, done)
        self.say("running", told)
        step = done
        with run.metrics_path.open("ab", buffering=0) as metrics:
            steps = trainer.steps(done)
            while not self.told_to_stop and self._obey(trainer, tokenizer, step):
                record = next(steps, None)
                if record is None:
                    break
                step = record.step
                jsonl.append(metrics, {**dataclasses.asdict(record), "time": round(time.time(), 3)})
                if record.val_loss is not None:
                    for look in evaluations.LOOKS:
                        look(run, trainer, tokenizer, record)
                if step % s.checkpoint_every == 0 or step == s.steps:
                    os.fsync(metrics.fileno())  # a checkpoint must not outlive the lines that lead to it
                    self.save(trainer, tokenizer, step)
        self.save(trainer, tokenizer, step)
        if step >= s.steps:
            self.say("finished", f"all {s.steps:,} steps are done")
        else:
            self.say(
                "stopped",
                f"saved at step {step:,} of {s.steps:,}" if step else "stopped before the first step",
            )

    def save(self, trainer: Trainer, tokenizer: BPETokenizer, step: int) -> None:
        """Saves what is worth it: the seed alone gives step 0 again, and nothing is saved twice."""
        if step and step != self.saved:
            checkpoints.save(self.run, trainer, tokenizer, step)
            self.saved = step

    def _check_corpus(self, digest: str) -> None:
        """A run that goes on must go on with the text it began with."""
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
        """Does what control.json asks for between `step` and the next: saves, sleeps as long as it asks for a pause
        (saving first), changes the learning rate. False where it asks for a stop instead."""
        control = self.run.control()
        if control.get("paused") and not self.told_to_stop:
            self.save(trainer, tokenizer, step)
            self.say("paused", f"paused at step {step:,}")
            while control.get("paused") and not control.get("stop") and not self.told_to_stop:
                time.sleep(0.1)
                control = self.run.control()
            if not control.get("stop") and not self.told_to_stop:
                self.say("running")
        if control.get("stop") or self.told_to_stop:
            return False
        if control.get("save") not in (None, self._save_asked):
            self._save_asked = control["save"]
            self.save(trainer, tokenizer, step)
            self.say("running", f"saved at step {step:,}, as asked")
        if step < self.settings.steps:
            changed = changes.take(self.run, trainer.changes, step + 1, control)
            if changed is not trainer.changes:
                trainer.changes = changed
                self.say("running", f"learning rate {changed[-1].learning_rate:g} at most, from step {step + 1:,} on")
        return True


def log(line: str) -> None:
    """A line on stdout, which is the run's log; what it quotes (a file's name) can't steer the terminal that shows it."""
    with suppress(OSError):  # a full disk: the status says it
        os.write(1, f"{time.strftime('%F %T')} {visible(line, newlines=True)}\n".encode())


def main(arguments: list[str]) -> int:
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
        with suppress(UserError):
            run.write_status("failed", str(error))
        return 2
    for name in (signal.SIGTERM, signal.SIGINT):  # before the lock: who sees it held may send one
        signal.signal(name, worker.stop)
    torch.set_flush_denormal(True)
    try:
        with run.held(PATIENCE):
            return work(worker)
    except Timeout:
        log(f"run {run.name} is being trained by another process")
        return 3


def work(worker: Worker) -> int:
    """Trains, under the lock; however that ends, the status says it."""
    run = worker.run
    try:
        write_aside(run.path / "pid", lambda part: _write(part, str(os.getpid())))
        checkpoints.clean(run)
        worker.work()
        return 0
    except Stopped:
        worker.say("stopped", "stopped before the first step")
        return 0
    except (UserError, Diverged) as error:
        message = str(error)
    except (torch.OutOfMemoryError, MemoryError):
        message = OUT_OF_MEMORY
    except OSError as error:
        message = f"{error.strerror or error} ({error.filename or run.path}); free some space, then resume"
    except Exception as error:  # whatever it is, the screen hears of it; the traceback goes to the log
        log(traceback.format_exc())
        # torch's CPU allocator has no exception of its own.
        message = (
            OUT_OF_MEMORY
            if "can't allocate memory" in str(error)
            else f"{type(error).__name__}: {error} (see {run.log_path})"
        )
    try:
        worker.say("failed", " ".join(message.split()))
    except UserError as error:
        log(f"and: {error}")
    return 1


def _write(path: Path, text: str) -> None:
    path.write_text(text)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
