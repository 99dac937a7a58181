"""What a run directory contains, and how to read it. The screen and `tui-llm runs` use it; it does not import torch.

config.json        corpus, preset, device and settings; rewritten when they are changed between two workers (see
                   `extend`, `refit`, `use`, `change_compile` and `write_tensorboard` of plan/launch.py)
status.json        the worker's state, message and facts; only the lock shows whether a worker is alive
control.json       requests to the worker: paused, stop, save, learning_rate, batch
shipped.json       loss on the held-out rows of a shipped model with the same vocabulary, measured once
tensorboard/       TensorBoard event files of the metrics, if requested
changes.json       changes of the learning rate during training, with their steps
metrics.jsonl      one line for each step: step, loss, lr, grad_norm, tokens_per_second; val_loss where it was measured
samples.jsonl      a text generated at each evaluation
pins.json          the pinned prompts, read at each evaluation; may change during training
probes.jsonl       the model's predictions for them at each evaluation
batch.json         the next batch with the model's loss on each of its tokens (see batch.py); only the newest
checkpoint-STEP/   a model folder and the optimizer's state; written under another name, then renamed
start/             a copy of the model that training started from, unless it started from random weights
worker.log         the worker's stdout and stderr
lock               locked by the worker while it lives, as is this directory itself (see run_lock.py)
pid                the worker's process id, for signals; valid only while the lock is held
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from filelock import Timeout

from tui_llm.common import paths, storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import open_regular, read_json
from tui_llm.training.run import jsonl, run_lock
from tui_llm.training.run.metrics import Metric, parse_metric
from tui_llm.training.run.run_lock import RunLock
from tui_llm.training.run.settings import TrainingSettings, from_fields

STARTING_GRACE = 60.0  # seconds a new worker may take to acquire its lock: importing torch is slow on a busy machine
VERSION = 1  # of config.json's format; a later tui-llm may increase it
DAMAGED = 1 << 25
JSON_MOST = 1 << 20  # bytes of config.json, status.json and control.json
LONGEST = 2000  # characters of a string in status.json
MOST = 2**53  # of a count: larger integers are not exact in every JSON reader (float64)
STATES = ("new", "starting", "running", "paused", "finished", "stopped", "failed", "died")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class NewerRun(UserError):
    """The run was made by a later tui-llm: it is listed, but not changed."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A run's configuration.

    `corpus` contains absolute paths of files and folders, or names from `corpora.NAMES`; `preset` is the preset's name.
    `tensorboard` says whether event files are written too. `nproc` is the number of worker processes on this machine;
    with `shard`, each holds a shard of the weights instead of a copy (FSDP).
    """

    corpus: tuple[str, ...]
    preset: str
    device: str
    settings: TrainingSettings
    tensorboard: bool = False
    nproc: int = 1
    shard: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """A text generated from `prompt` after `step` steps."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True, slots=True)
class Status:
    """A run's state.

    `state` is starting, running, paused, finished, stopped, failed, died (its worker is gone but did not end properly),
    new (never started), or newer (made by a later tui-llm, which alone can read it). `message` is one line about what
    is happening or went wrong, not sanitized for a terminal. `step` is the last step, `steps` the number configured.
    `vocabulary` and `parameters` are known once the model is built. `fits` is (batch size, gradient accumulation steps) that should
    fit into memory, after a run has run out of it.
    """

    state: str
    message: str = ""
    step: int = 0
    steps: int = 0
    vocabulary: int | None = None
    parameters: int | None = None
    device: str | None = None
    fits: tuple[int, int] | None = None
    precision: str | None = None  # a description, e.g. "fp32"
    problem: str = ""  # what is wrong with the run's files: one line, not sanitized

    @property
    def alive(self) -> bool:
        """Whether a worker is starting, training or paused."""
        return self.state in ("starting", "running", "paused")

    @property
    def told(self) -> str:
        """The message, followed by `problem` unless it contains it: one line, not sanitized for a terminal."""
        wrong = f"! {self.problem}" if self.problem and self.problem not in self.message else ""
        return " ".join(f"{self.message} {wrong}".split())


def check_name(name: str) -> str:
    """Returns `name` if it is a valid run name: letters, digits, `.`, `_`, `-`, so never a path.

    Raises `UserError` if not.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} can't name a run; use letters, digits, '.', '_' and '-' (at most 64, starting with a letter or digit)"
        )
    return name


class Run:
    """One run directory. Cheap to construct; every method reads the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.metrics_path = path / "metrics.jsonl"
        self.samples_path = path / "samples.jsonl"
        self.pins_path = path / "pins.json"
        self.probes_path = path / "probes.jsonl"
        self.lock_path = path / "lock"
        self.log_path = path / "worker.log"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # ── configuration and requests ──

    def exists(self) -> bool:
        """Whether the run exists, even if it can't be read."""
        return os.path.lexists(self.path / "config.json")

    def config(self) -> RunConfig:
        """Reads config.json.

        Raises `UserError` if it is missing or damaged, `NewerRun` if a later tui-llm has written it.
        """
        raw = read_json(self.path / "config.json", JSON_MOST)
        self._check_version(raw)
        try:
            return RunConfig(
                _corpus(raw["corpus"]),
                str(raw["preset"]),
                str(raw["device"]),
                from_fields(raw["settings"]),
                raw.get("tensorboard") is True,
                _processes(raw.get("nproc", 1)),  # absent in runs of earlier versions
                raw.get("shard", False) is True,
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise UserError(f"{self.path / 'config.json'} is not a run's config ({error!r}); delete the run") from error

    def _check_version(self, raw: Any) -> None:
        version, settings = (raw.get("version", 1), raw.get("settings")) if isinstance(raw, dict) else (1, None)
        known = {field.name for field in fields(TrainingSettings)}
        unknown = sorted(set(settings) - known) if isinstance(settings, dict) else []
        if unknown or (isinstance(version, int | float) and version > VERSION):
            why = f" (its setting {unknown[0][:40]!r} is unknown here)" if unknown else ""
            raise NewerRun(f"run {self.name} was made by a newer tui-llm{why}; update tui-llm to use it")

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
        write_json(self.path / "control.json", {**self.control(), **asked})

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
        alive = self.alive()  # before reading the file: a worker that ends in between has written its final state
        raw, damage = self._object("status.json")
        last = self.last_metric()
        step = last.step if last else 0
        problem = self._problem(damage, last)
        try:
            config = self.config()
        except NewerRun as error:
            return Status("newer", str(error), step, problem=problem)
        except UserError as error:
            return Status("failed", str(error), step, problem=problem or str(error))
        said = raw.get("state")
        state = said if isinstance(said, str) and said in STATES else "new"
        if alive:
            if state in ("new", "died"):
                state = "starting"
        elif state == "starting" and _just_said(raw, config.nproc):
            pass  # the worker has not acquired its lock yet
        elif state in ("starting", "running", "paused"):
            state = "died"
        message = _text(raw.get("message")) or ""
        if state == "died":
            message = f"its worker ended without a message; resume it from its last checkpoint (log: {self.log_path})"
        return Status(
            state,
            message,
            step,
            config.settings.steps,
            _count(raw.get("vocabulary")),
            _count(raw.get("parameters")),
            _text(raw.get("device")),
            _fits(raw.get("fits")) if state == "failed" else None,
            _text(raw.get("arithmetic")),
            problem,
        )

    def _problem(self, said: str, last: Metric | None) -> str:
        """Returns one line about what is wrong with the run's files; empty if nothing is.

        `said` is the problem of status.json.
        """
        for path in (self.metrics_path, self.samples_path, self.probes_path):
            if found := jsonl.problem(path):
                return found
        if found := said or self._object("control.json")[1]:
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
        """Returns all checkpoints, oldest first, including those that have lost a file since they were saved."""
        try:
            children = list(self.path.iterdir())
        except OSError:
            return []
        return sorted((int(match[1]), child) for child in children if (match := CHECKPOINT.fullmatch(child.name)))

    def size(self) -> int:
        """Returns the run's size on disk in bytes."""
        total = 0
        for file in self.path.rglob("*"):
            with suppress(OSError):  # a worker may rename or delete files meanwhile
                total += file.stat().st_size if file.is_file() else 0
        return total

    def delete(self) -> None:
        """Deletes the run. Raises `UserError` while a worker holds it."""
        if self.alive():
            raise UserError(f"run {self.name} is being trained; stop it first (tui-llm stop {self.name})")
        try:
            storage.rmtree(self.path)
        except OSError as error:
            raise UserError(f"can't delete {self.path}: {error.strerror or error}") from error


def _just_said(raw: dict[str, Any], processes: int) -> bool:
    """Whether a status was written recently, by either clock.

    The wall clock jumps when it is set; the monotonic clock restarts with the machine. Several processes get twice the
    time, since they connect to each other before they acquire the lock.
    """
    grace = STARTING_GRACE * (2 if processes > 1 else 1)
    spans = (
        time.time() - (number(raw.get("time")) or 0.0),
        time.monotonic() - (number(raw.get("monotonic")) or -math.inf),
    )
    return any(abs(span) < grace for span in spans)


def _corpus(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("corpus is a list of texts")
    return tuple(map(str, value))


def _processes(value: Any) -> int:
    if (count := int(value)) > 4096:
        raise ValueError(f"nproc is {count}")
    return max(1, count)


def number(value: Any) -> float | None:
    """Returns a finite JSON number as a float; None for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < sys.float_info.max else None


def _count(value: Any) -> int | None:
    found = number(value)
    return int(found) if found is not None and 0 <= found < MOST else None


def _text(value: Any) -> str | None:
    return value[:LONGEST] if isinstance(value, str) and value else None


def _fits(value: Any) -> tuple[int, int] | None:
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) and 0 < n < MOST for n in value)):
        return None
    return value[0], value[1]


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
