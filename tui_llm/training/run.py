"""What a run directory holds, and how to read it. No torch here: the screen and `tui-llm runs` look at runs with this.

config.json        what was asked (corpus, settings), written once
status.json        what the worker says it is doing; whether it is alive says the lock alone
control.json       what a person asks of the worker: paused, stop, save, learning_rate
changes.json       what was changed on the way, and at which step
metrics.jsonl      a line for each step: step, loss, lr, grad_norm, tokens_per_second, val_loss where measured
samples.jsonl      a text that the model wrote at each evaluation
checkpoint-STEP/   a model folder with the optimiser's state, written aside and renamed
start/             the model that it started from, where it was not from random weights
worker.log         what the worker printed
lock               held by the worker as long as it lives
pid                who holds it, for signals; believed only while it is held
"""

from __future__ import annotations

import errno
import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tui_llm import paths
from tui_llm.errors import UserError
from tui_llm.files import read_json, write_json
from tui_llm.training import jsonl
from tui_llm.training.metrics import Metric, parse_metric
from tui_llm.training.presets import TrainingSettings, from_fields

try:
    import fcntl
except ImportError:  # no flock on Windows
    fcntl = None  # type: ignore[assignment]

STARTING_GRACE = 20.0  # seconds that a new worker has to take its lock
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What was asked: the corpus (absolute paths of files and folders, names of `corpora.NAMES`), the preset's name, the settings, the device."""

    corpus: tuple[str, ...]
    preset: str
    device: str
    settings: TrainingSettings


@dataclass(frozen=True, slots=True)
class Sample:
    step: int
    prompt: str
    text: str


@dataclass(frozen=True, slots=True)
class Status:
    """state: starting, running, paused, finished, stopped, failed, died, or new (never started). `message` says what
    is going on or went wrong, in one line of raw text; steps is how many were asked for; vocabulary and parameters
    are known once the model is built."""

    state: str
    message: str = ""
    step: int = 0
    steps: int = 0
    vocabulary: int | None = None
    parameters: int | None = None
    device: str | None = None
    precision: str | None = None  # of the arithmetic, in words

    @property
    def alive(self) -> bool:
        return self.state in ("starting", "running", "paused")


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
        self.lock_path = path / "lock"
        self.log_path = path / "worker.log"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # ── asked ──

    def exists(self) -> bool:
        return (self.path / "config.json").is_file()

    def config(self) -> RunConfig:
        """Raises `UserError` where it is missing or damaged."""
        raw = read_json(self.path / "config.json")
        try:
            return RunConfig(
                tuple(map(str, raw["corpus"])),
                str(raw["preset"]),
                str(raw["device"]),
                from_fields(raw["settings"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path / 'config.json'} is not a run's config ({error!r}); delete the run") from error

    def write_config(self, config: RunConfig) -> None:
        write_json(self.path / "config.json", {"version": 1, **asdict(config)})

    def control(self) -> dict[str, Any]:
        try:
            value = read_json(self.path / "control.json")
        except UserError:
            return {}
        return value if isinstance(value, dict) else {}

    def write_control(self, **fields: Any) -> None:
        write_json(self.path / "control.json", {**self.control(), **fields})

    # ── what happened ──

    def lock(self, timeout: float = 0) -> FileLock:
        """The lock that a worker holds as long as it lives (flock, through filelock)."""
        return FileLock(self.lock_path, timeout=timeout)

    @contextmanager
    def held(self, patience: float) -> Iterator[None]:
        """Holds the lock. Raises filelock's `Timeout` where another process holds it for `patience` seconds on end.

        Those who only look whether the run is alive share the lock for an instant: they are waited out, not counted.
        """
        lock, since = self.lock(), None
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
            yield
        finally:
            lock.release()

    def alive(self) -> bool:
        """Whether a worker holds the lock. A pid in a file proves nothing; a held lock does."""
        try:
            with self.lock_path.open("rb") as file:
                if fcntl is None:
                    with self.lock():
                        return False
                # Shared, where the worker's is exclusive: two who look at once don't take each other for a worker.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except Timeout:
            return True
        except FileNotFoundError:
            return False
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)

    def write_status(self, state: str, message: str = "", **more: Any) -> None:
        value = {"state": state, "message": message, "time": time.time(), **more}
        try:
            write_json(self.path / "status.json", value)
        except UserError:
            # A full disk has no room for a second file, but why it failed must be told: over the old one, in place.
            if state != "failed" or not _overwrite(self.path / "status.json", json.dumps(value).encode()):
                raise

    def _said(self) -> dict[str, Any]:
        try:
            value = read_json(self.path / "status.json")
        except UserError:
            return {}
        return value if isinstance(value, dict) else {}

    def status(self) -> Status:
        alive = self.alive()  # before the file: a worker that ends between the two looks has said so
        raw = self._said()
        try:
            steps = self.config().settings.steps
        except UserError as error:
            return Status("failed", str(error))
        last = self.last_metric()
        state, said = str(raw.get("state", "new")), _float(raw.get("time"))
        if alive:
            if state in ("new", "died"):
                state = "starting"
        elif state == "starting" and abs(time.time() - said) < STARTING_GRACE:
            pass  # the worker is on its way to its lock
        elif state in ("starting", "running", "paused"):
            state = "died"
        message = str(raw.get("message", ""))
        if state == "died":
            message = f"its worker is gone without a word; resume it from its last checkpoint (log: {self.log_path})"
        return Status(
            state,
            message,
            last.step if last else 0,
            steps,
            _int_or_none(raw.get("vocabulary")),
            _int_or_none(raw.get("parameters")),
            str(raw["device"]) if raw.get("device") else None,
            str(raw["precision"]) if raw.get("precision") else None,
        )

    def last_metric(self) -> Metric | None:
        """The last whole line of metrics.jsonl, found from the file's end."""
        try:
            with self.metrics_path.open("rb") as file:
                file.seek(0, 2)
                size = file.tell()
                file.seek(max(0, size - 8192))
                lines = file.read().split(b"\n")
        except OSError:
            return None
        for line in reversed(lines[:-1]):
            metric = parse_metric(line)
            if metric:
                return metric
        return None

    def samples(self) -> list[Sample]:
        return jsonl.read(
            self.samples_path, lambda value: Sample(int(value["step"]), str(value["prompt"]), str(value["text"]))
        )

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Whole checkpoints, oldest first, as (step, folder)."""
        if not self.path.is_dir():
            return []
        found = []
        for child in self.path.iterdir():
            match = CHECKPOINT.fullmatch(child.name)
            if match and (child / "config.json").is_file() and (child / "training.json").is_file():
                found.append((int(match[1]), child))
        return sorted(found)

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
            shutil.rmtree(self.path)
        except OSError as error:
            raise UserError(f"can't delete {self.path}: {error.strerror or error}") from error


def _int_or_none(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _overwrite(path: Path, data: bytes) -> bool:
    """Writes over an existing file without asking the disk for more room; says whether that went well."""
    try:
        with path.open("r+b", buffering=0) as file:
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
        if run.exists():
            yield run
