"""What a run directory contains, and how to read it. The screen and `tui-llm runs` use it; it does not import torch.

config.json        corpus, preset, device and settings; rewritten when they are changed between two workers (see
                   `extend`, `change_batch_size`, `set_processes`, `change_execution` and `enable_tensorboard` of
                   plan/launch.py)
status.json        the worker's state, message and facts; only the lock shows whether a worker is alive
control.json       requests to the worker: paused, stop, save, learning_rate, batch; the pid of one that is starting
shipped.json       loss on the held-out rows of a shipped model with the same vocabulary, measured once
tensorboard/       TensorBoard event files of the metrics, if requested
time_plan.json     of a run with a time budget: the planned steps, and each change of that (see time_plan.py)
changes.json       changes of the learning rate during training, with their steps
parent.jsonl       of a branch: the metrics of the run that it branches from, up to the branch's step (see branch.py)
metrics.jsonl      one line for each step: step, loss, lr, grad_norm, tokens_per_second; val_loss where it was measured
samples.jsonl      a text generated at each evaluation
pins.json          the pins (prompts, some with a target), read at each evaluation; may change during training
probes.jsonl       the pin readings: what the model predicts for the pins at each evaluation
heads.jsonl        the scores of all attention heads at each evaluation (see head_readings.py)
alarms.jsonl       spikes, plateaus and other alarms, once each with their step and evidence (see health.py)
matrices.jsonl     gradient norms, updates and activation scales by kind of matrix (see matrix_statistics.py)
batch.json         the next batch with the model's loss on each of its tokens (see batch.py); only the newest
checkpoint-STEP/   a model folder and the optimizer's state; written under another name, then renamed
start/             a copy of the model that training started from, unless it started from random weights
worker.log         the worker's stdout and stderr
answers.safetensors  the tokens of the pairs or prompts, of a run that learns preferences or a reward
lock               locked by the worker while it lives, as is this directory itself (see run_lock.py)
*.json.lock        locked while control.json or pins.json is read and written again
pid                the worker's process id, for signals; valid only while the lock is held
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from tui_llm.common import paths, storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import delete_folder, locked, write_json
from tui_llm.common.foreign_files import open_regular, read_json
from tui_llm.training.run import jsonl, run_lock, status
from tui_llm.training.run.config import VERSION, NewerRun, RunConfig, parse_config
from tui_llm.training.run.metrics import Metric, parse_metric
from tui_llm.training.run.run_lock import RunLock
from tui_llm.training.run.status import Status

DAMAGED = 1 << 25  # bytes from the end of metrics.jsonl that are searched for an undamaged line
JSON_MOST = 1 << 20  # bytes of config.json, status.json and control.json
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ANSWERS = "answers.safetensors"
VOCABULARY = "vocabulary"  # the folder of a vocabulary that was made from the run's text: char, word
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class Sample:
    """A text generated from `prompt` after `step` steps."""

    step: int
    prompt: str
    text: str


def check_name(name: str) -> str:
    """Returns `name` if it is a valid run name: letters, digits, `.`, `_`, `-`, so never a path.

    Raises `UserError` if not.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} can't name a run; use letters, digits, '.', '_' and '-' (at most 64, starting with a letter or digit)"
        )
    return name


def free_name(corpus: str, preset: str) -> str:
    """A name that no run has yet, such as `tales-toy` or `tales-toy-2`."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(corpus.rstrip("/")).stem)[:40].strip("-").lower()
    base = f"{stem}-{preset}" if stem else preset
    name, at = base, 1
    while (paths.runs_dir() / name).exists():
        at += 1
        name = f"{base}-{at}"
    return name


class Run:
    """One run directory. Cheap to construct; every method reads the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.metrics_path = path / "metrics.jsonl"
        self.samples_path = path / "samples.jsonl"
        self.pins_path = path / "pins.json"
        self.pin_readings_path = path / "probes.jsonl"
        self.heads_path = path / "heads.jsonl"
        self.matrices_path = path / "matrices.jsonl"
        self.lock_path = path / "lock"
        self.log_path = path / "worker.log"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def sources(self) -> tuple[Path, ...]:
        """The folders and files that reading it reads: nothing that is made from them may replace one."""
        return (self.path,)

    # ── configuration and requests ──

    def exists(self) -> bool:
        """Whether the run exists, even if it can't be read."""
        return os.path.lexists(self.path / "config.json")

    def config(self) -> RunConfig:
        """Reads config.json.

        Raises `UserError` if it is missing or damaged, `NewerRun` if a later tui-llm has written it.
        """
        path = self.path / "config.json"
        return parse_config(read_json(path, JSON_MOST), path)

    def write_config(self, config: RunConfig) -> None:
        """Writes config.json atomically. Raises `UserError` if it can't be written."""
        write_json(self.path / "config.json", {"version": VERSION, **asdict(config)})

    def control(self) -> dict[str, Any]:
        """Returns the requests in control.json; an empty dict if there are none or the file is damaged."""
        return self._object("control.json")[0]

    def write_control(self, **asked: Any) -> None:
        """Updates control.json.

        Raises `UserError` if it can't be written, `NewerRun` if a later tui-llm made the run.
        """
        try:
            self.config()
        except NewerRun:
            raise
        except UserError:
            pass  # with a damaged config, a running worker can still receive requests
        path = self.path / "control.json"
        with locked(path):  # another process may ask for something else
            write_json(path, {**self.control(), **asked})

    # ── state and results ──

    @contextmanager
    def held(self, patience: float) -> Iterator[RunLock]:
        """Holds the run's lock.

        Raises filelock's `Timeout` if another process holds it for `patience` seconds without a break.

        A process that checks whether the run is alive holds the lock shared for an instant. That does not count.
        """
        lock, since = RunLock(self.path), None
        while True:
            try:
                lock.acquire()
                break
            except Timeout:
                since = (since or time.monotonic()) if self.alive() else None
                if since is not None and time.monotonic() - since >= patience:
                    raise
                time.sleep(0.005)
        try:
            yield lock
        finally:
            lock.release()

    def alive(self) -> bool:
        """Whether a worker holds the run's lock. A pid in a file is no proof; a held lock is."""
        return run_lock.held(self.path)

    def starting(self) -> int | None:
        """The pid of a worker that was started and does not hold the lock yet; None if there is none, or its pid is not known."""
        try:
            processes = self.config().nproc
        except UserError:
            processes = 1
        return status.starting_pid(self.facts(), self.control(), self.path, processes)

    def taken(self) -> bool:
        """Whether a worker holds the run, or is starting."""
        return self.starting() is not None or self.alive()  # in this order: it may acquire the lock in between

    def write_status(self, state: str, message: str = "", **more: Any) -> None:
        """Writes status.json, with `more` facts. Raises `UserError` if it can't be written."""
        value = {"state": state, "message": message, "time": time.time(), "monotonic": time.monotonic(), **more}
        try:
            write_json(self.path / "status.json", value)
        except UserError:
            # A full disk has no room for a second file, but the reason must be kept: overwrite the old one in place.
            if state != "failed" or not _overwrite(self.path / "status.json", json.dumps(value).encode()):
                raise

    def facts(self) -> dict[str, Any]:
        """Returns what the worker recorded in status.json: state, entropies, peak FLOP/s, …. Nothing is validated."""
        return self._object("status.json")[0]

    def _object(self, name: str) -> tuple[dict[str, Any], str]:
        """Returns the object in a small JSON file, and what is wrong with the file.

        Returns ({}, "") if it does not exist.
        """
        path = self.path / name
        try:
            value = read_json(path, JSON_MOST)
        except UserError as error:
            return {}, str(error) if os.path.lexists(path) else ""
        return (value, "") if isinstance(value, dict) else ({}, f"{path} is not a JSON object; it may be damaged")

    def status(self) -> Status:
        """Reads the run's state. Never raises because of the content of its files."""
        return self.status_and_metric()[0]

    def status_and_metric(self) -> tuple[Status, Metric | None]:
        """As `status`, with the metric of the step that it states: read separately, one could be of a later step."""
        alive = self.alive()  # before reading the file: a worker that ends in between has written its final state
        raw, damage = self._object("status.json")
        last = self.last_metric()
        step = last.step if last else 0
        problem = self._problem(damage, last)
        try:
            config = self.config()
        except NewerRun as error:
            return Status("newer", str(error), step, problem=problem), last
        except UserError as error:
            return Status("failed", str(error), step, problem=problem or str(error)), last
        starting = status.is_starting(raw, self.control(), self.path, config.nproc)
        found = status.parse_status(
            raw, config, step, problem=problem, alive=alive, starting=starting, log_path=self.log_path
        )
        return found, last

    def _problem(self, recorded: str, last: Metric | None) -> str:
        """Returns one line about what is wrong with the run's files; empty if nothing is.

        `recorded` is the problem of status.json.
        """
        for path in (self.metrics_path, self.samples_path, self.pin_readings_path, self.heads_path, self.matrices_path):
            if found := jsonl.problem(path):
                return found
        if found := recorded or self._object("control.json")[1]:
            return found
        if os.path.lexists(self.lock_path) and not self.lock_path.is_file():
            return f"{self.lock_path} is not a regular file; delete it, then resume"
        if last and not all(map(math.isfinite, (last.loss, last.lr, last.grad_norm, last.tokens_per_second))):
            return f"metrics.jsonl: not all numbers of its last line, of step {last.step:,}, are finite"
        return ""

    def last_metric(self) -> Metric | None:
        """Returns the last complete line of metrics.jsonl.

        Searches back from the end, past up to `DAMAGED` bytes of damage.
        """
        span = 8192
        try:
            with open_regular(self.metrics_path, jsonl.MOST) as file:
                size = file.seek(0, 2)
                while True:
                    file.seek(max(0, size - span))
                    for line in reversed(file.read(min(span, size)).split(b"\n")[:-1]):
                        if metric := parse_metric(line):
                            return metric
                    if span >= min(size, DAMAGED):
                        return None
                    span *= 16
        except OSError:
            return None

    def samples(self) -> list[Sample]:
        """Returns the generated samples, oldest first."""
        return jsonl.read(
            self.samples_path, lambda value: Sample(int(value["step"]), str(value["prompt"]), str(value["text"]))
        )

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Returns the complete checkpoints, oldest first, as (step, folder)."""
        names = ("config.json", "training.json")
        return [(step, folder) for step, folder in self.saved() if all((folder / name).is_file() for name in names)]

    def saved(self) -> list[tuple[int, Path]]:
        """As `list_saved`; none if the folder can't be read."""
        try:
            return self.list_saved()
        except OSError:
            return []

    def list_saved(self) -> list[tuple[int, Path]]:
        """Returns all checkpoints, oldest first, including those that have lost a file since they were saved. Raises OSError."""
        children = list(self.path.iterdir())
        return sorted((int(match[1]), child) for child in children if (match := CHECKPOINT.fullmatch(child.name)))

    def size(self) -> int:
        """Returns the run's size on disk in bytes."""
        total = 0
        for file in self.path.rglob("*"):
            with suppress(OSError):  # a worker may rename or delete files meanwhile
                total += file.stat().st_size if file.is_file() else 0
        return total

    def delete(self) -> None:
        """Deletes the run. Raises `UserError` while a worker starts or holds it."""
        if self.taken() or self.status().alive:
            raise UserError(f"run {self.name} is being trained; stop it first (tui-llm stop {self.name})")
        try:
            delete_folder(self.path)
        except OSError as error:
            raise UserError(f"can't delete {self.path}: {error.strerror or error}") from error


def _overwrite(path: Path, data: bytes) -> bool:
    """Overwrites an existing file in place, which needs no new disk blocks. Returns whether that succeeded."""
    try:
        with storage.open_file(path, "r+b", buffering=0) as file:
            whole = file.write(data) == len(data)
            file.truncate(len(data))
            return whole
    except OSError:
        return False


def find(name: str) -> Run:
    """Returns the run with that name. Raises `UserError` if there is none."""
    run = Run(paths.runs_dir() / check_name(name))
    if not run.exists():
        names = ", ".join(r.name for r in runs()) or "none yet"
        raise UserError(f"there is no run {name!r}; the runs are: {names}")
    return run


def runs() -> Iterator[Run]:
    """Yields every run on this machine, by name."""
    top = paths.runs_dir()
    try:
        children = sorted(top.iterdir())
    except OSError:
        return
    for child in children:
        run = Run(child)
        if run.exists() and not child.name.startswith("."):  # a run that is being created
            yield run
