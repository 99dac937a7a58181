"""What a run directory holds, and how to read it. No torch here: the screen and `tui-llm runs` look at runs with this.

config.json        what was asked (corpus, settings), written once
status.json        what the worker says it is doing; whether it is alive says the lock alone
control.json       what a person asks of the worker: paused, stop, save, learning_rate, batch
shipped.json       the loss of a shipped model of the same vocabulary on the held-out rows, measured once
tensorboard/       event files of the metrics, where they were asked for
changes.json       what was changed on the way, and at which step
metrics.jsonl      a line for each step: step, loss, lr, grad_norm, tokens_per_second, val_loss where measured
samples.jsonl      a text that the model wrote at each evaluation
pins.json          the prompts that are read at each evaluation; may change while it runs
probes.jsonl       what the model made of them then
batch.json         the batch that comes next, with the model's loss on each token of it (see batch.py); the newest only
checkpoint-STEP/   a model folder with the optimiser's state, written aside and renamed
start/             the model that it started from, where it was not from random weights
worker.log         what the worker printed
lock               held by the worker as long as it lives, as this directory itself is (see run_lock.py)
pid                who holds it, for signals; believed only while it is held
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

STARTING_GRACE = 60.0  # seconds that a new worker has to take its lock: importing torch takes long on a busy machine
VERSION = 1  # of what config.json says; a later tui-llm may count on
DAMAGED = 1 << 25
JSON_MOST = 1 << 20  # bytes of config.json, status.json and control.json
LONGEST = 2000  # characters of a text in status.json
MOST = 2**53  # of a count: JSON has no larger ones that every reader takes for the same
STATES = ("new", "starting", "running", "paused", "finished", "stopped", "failed", "died")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class NewerRun(UserError):
    """A later tui-llm made this run: it is listed, and left alone."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What was asked: the corpus (absolute paths of files and folders, names of `corpora.NAMES`), the preset's name, the
    settings, the device, and whether TensorBoard's event files are written too. `nproc` processes train it on this machine;
    `shard` gives each a part of the weights instead of a copy (FSDP)."""

    corpus: tuple[str, ...]
    preset: str
    device: str
    settings: TrainingSettings
    tensorboard: bool = False
    nproc: int = 1
    shard: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    step: int
    prompt: str
    text: str


@dataclass(frozen=True, slots=True)
class Status:
    """state: starting, running, paused, finished, stopped, failed, died, new (never started), or newer (made by a later
    tui-llm, which alone can tell). `message` says what is going on or went wrong, in one line of raw text; steps is how
    many were asked for; vocabulary and parameters are known once the model is built; fits is (batch size, accumulation)
    for a run that failed for want of memory."""

    state: str
    message: str = ""
    step: int = 0
    steps: int = 0
    vocabulary: int | None = None
    parameters: int | None = None
    device: str | None = None
    fits: tuple[int, int] | None = None
    precision: str | None = None  # of the arithmetic, in words
    problem: str = ""  # what is wrong with the run's files, in one line of raw text

    @property
    def alive(self) -> bool:
        return self.state in ("starting", "running", "paused")

    @property
    def told(self) -> str:
        """The message and, where that doesn't say it, what is wrong with the files: one line of raw text."""
        wrong = f"! {self.problem}" if self.problem and self.problem not in self.message else ""
        return " ".join(f"{self.message} {wrong}".split())


def check_name(name: str) -> str:
    """Returns `name` if it can name a run; raises `UserError`. Never a path: letters, digits, `.`, `_`, `-`."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} can't name a run; use letters, digits, '.', '_' and '-' (at most 64, starting with a letter or digit)"
        )
    return name


class Run:
    """One run directory. Cheap to make; every method looks at the disk."""

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

    # ── asked ──

    def exists(self) -> bool:
        """Whether there is one, be it readable or not."""
        return os.path.lexists(self.path / "config.json")

    def config(self) -> RunConfig:
        """Raises `UserError` where it is missing or damaged, `NewerRun` where it says what this version can't know."""
        raw = read_json(self.path / "config.json", JSON_MOST)
        self._check_version(raw)
        try:
            return RunConfig(
                _corpus(raw["corpus"]),
                str(raw["preset"]),
                str(raw["device"]),
                from_fields(raw["settings"]),
                raw.get("tensorboard") is True,
                _processes(raw.get("nproc", 1)),  # a run of an earlier version has one
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
        write_json(self.path / "config.json", {"version": VERSION, **asdict(config)})

    def control(self) -> dict[str, Any]:
        return self._object("control.json")[0]

    def write_control(self, **asked: Any) -> None:
        """Raises `UserError` where nothing can be asked of the run: it can only be read, or a later tui-llm made it."""
        try:
            self.config()
        except NewerRun:
            raise
        except UserError:
            pass  # a damaged config: a worker that has read it before can still be asked
        write_json(self.path / "control.json", {**self.control(), **asked})

    # ── what happened ──

    @contextmanager
    def held(self, patience: float) -> Iterator[RunLock]:
        """Holds the run. Raises filelock's `Timeout` where another process holds it for `patience` seconds on end.

        Those who only look whether the run is alive share the locks for an instant: they are waited out, not counted.
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
        """Whether a worker holds the run. A pid in a file proves nothing; a held lock does."""
        return run_lock.held(self.path)

    def write_status(self, state: str, message: str = "", **more: Any) -> None:
        value = {"state": state, "message": message, "time": time.time(), "monotonic": time.monotonic(), **more}
        try:
            write_json(self.path / "status.json", value)
        except UserError:
            # A full disk has no room for a second file, but why it failed must be told: over the old one, in place.
            if state != "failed" or not _overwrite(self.path / "status.json", json.dumps(value).encode()):
                raise

    def facts(self) -> dict[str, Any]:
        """What the worker noted in status.json beside its state: entropies, the machine's peak …; nothing is checked."""
        return self._object("status.json")[0]

    def _object(self, name: str) -> tuple[dict[str, Any], str]:
        """What a small JSON file says, and what is wrong with it: nothing where there is none."""
        path = self.path / name
        try:
            value = read_json(path, JSON_MOST)
        except UserError as error:
            return {}, str(error) if os.path.lexists(path) else ""
        return (value, "") if isinstance(value, dict) else ({}, f"{path} is no JSON object; it may be damaged")

    def status(self) -> Status:
        alive = self.alive()  # before the file: a worker that ends between the two looks has said so
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
            pass  # the worker is on its way to its lock
        elif state in ("starting", "running", "paused"):
            state = "died"
        message = _text(raw.get("message")) or ""
        if state == "died":
            message = f"its worker is gone without a word; resume it from its last checkpoint (log: {self.log_path})"
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
        """What is wrong with the files that a look at the run reads, in one line; empty where all is well. `said` is what
        is wrong with status.json."""
        for path in (self.metrics_path, self.samples_path, self.probes_path):
            if found := jsonl.problem(path):
                return found
        if found := said or self._object("control.json")[1]:
            return found
        if os.path.lexists(self.lock_path) and not self.lock_path.is_file():
            return f"{self.lock_path} is no regular file; delete it, then resume"
        if last and not all(map(math.isfinite, (last.loss, last.lr, last.grad_norm, last.tokens_per_second))):
            return f"metrics.jsonl: not all numbers of its last line, of step {last.step:,}, are finite"
        return ""

    def last_metric(self) -> Metric | None:
        """The last whole line of metrics.jsonl, found from the file's end, past damage of up to `DAMAGED` bytes."""
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
        return jsonl.read(
            self.samples_path, lambda value: Sample(int(value["step"]), str(value["prompt"]), str(value["text"]))
        )

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Whole checkpoints, oldest first, as (step, folder)."""
        names = ("config.json", "training.json")
        return [(step, folder) for step, folder in self.saved() if all((folder / name).is_file() for name in names)]

    def saved(self) -> list[tuple[int, Path]]:
        """Every checkpoint that was ever whole, oldest first: one that lost a file since is among them."""
        try:
            children = list(self.path.iterdir())
        except OSError:
            return []
        return sorted((int(match[1]), child) for child in children if (match := CHECKPOINT.fullmatch(child.name)))

    def size(self) -> int:
        """Bytes on the disk."""
        total = 0
        for file in self.path.rglob("*"):
            with suppress(OSError):  # a worker renames and deletes while we look
                total += file.stat().st_size if file.is_file() else 0
        return total

    def delete(self) -> None:
        """Raises `UserError` while a worker holds it."""
        if self.alive():
            raise UserError(f"run {self.name} is being trained; stop it first (tui-llm stop {self.name})")
        try:
            storage.rmtree(self.path)
        except OSError as error:
            raise UserError(f"can't delete {self.path}: {error.strerror or error}") from error


def _just_said(raw: dict[str, Any], processes: int) -> bool:
    """Whether a status was written a moment ago. By either clock: one jumps when someone sets it, the other begins anew
    with the machine. Several processes find each other before they take the lock."""
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
    """A finite number out of JSON; None where it is none."""
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
    """Writes over an existing file without asking the disk for more room; says whether that went well."""
    try:
        with storage.open_file(path, "r+b", buffering=0) as file:
            whole = file.write(data) == len(data)
            file.truncate(len(data))
            return whole
    except OSError:
        return False


def find(name: str) -> Run:
    """The run of that name. Raises `UserError` where there is none."""
    run = Run(paths.runs_dir() / check_name(name))
    if not run.exists():
        names = ", ".join(r.name for r in runs()) or "none yet"
        raise UserError(f"there is no run {name!r}; there are: {names}")
    return run


def runs() -> Iterator[Run]:
    """Every run on this machine, by name."""
    top = paths.runs_dir()
    try:
        children = sorted(top.iterdir())
    except OSError:
        return
    for child in children:
        run = Run(child)
        if run.exists() and not child.name.startswith("."):  # one that is being made
            yield run
