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
from dataclasses import asdict, dataclass, fields
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

STARTING_GRACE = 60.0  # seconds that a new worker has to take its lock: importing torch takes long on a busy machine
VERSION = 1  # of what config.json says; a later tui-llm may count on
DAMAGED = 1 << 25
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
        self.pins_path = path / "pins.json"
        self.probes_path = path / "probes.jsonl"
        self.lock_path = path / "lock"
        self.log_path = path / "worker.log"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # ── asked ──

    def exists(self) -> bool:
        return (self.path / "config.json").is_file()

    def config(self) -> RunConfig:
        """Raises `UserError` where it is missing or damaged, `NewerRun` where it says what this version can't know."""
        raw = read_json(self.path / "config.json")
        self._check_version(raw)
        try:
            return RunConfig(
                tuple(map(str, raw["corpus"])),
                str(raw["preset"]),
                str(raw["device"]),
                from_fields(raw["settings"]),
                raw.get("tensorboard") is True,
                max(1, int(raw.get("nproc", 1))),  # a run of an earlier version has one
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
        try:
            value = read_json(self.path / "control.json")
        except UserError:
            return {}
        return value if isinstance(value, dict) else {}

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
        value = {"state": state, "message": message, "time": time.time(), "monotonic": time.monotonic(), **more}
        try:
            write_json(self.path / "status.json", value)
        except UserError:
            # A full disk has no room for a second file, but why it failed must be told: over the old one, in place.
            if state != "failed" or not _overwrite(self.path / "status.json", json.dumps(value).encode()):
                raise

    def facts(self) -> dict[str, Any]:
        """What the worker noted in status.json beside its state: entropies, the machine's peak …; nothing is checked."""
        return self._said()

    def _said(self) -> dict[str, Any]:
        try:
            value = read_json(self.path / "status.json")
        except UserError:
            return {}
        return value if isinstance(value, dict) else {}

    def status(self) -> Status:
        alive = self.alive()  # before the file: a worker that ends between the two looks has said so
        raw = self._said()
        last = self.last_metric()
        try:
            config = self.config()
        except NewerRun as error:
            return Status("newer", str(error), last.step if last else 0)
        except UserError as error:
            return Status("failed", str(error))
        state = str(raw.get("state", "new"))
        if alive:
            if state in ("new", "died"):
                state = "starting"
        elif state == "starting" and _just_said(raw, config.nproc):
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
            config.settings.steps,
            _int_or_none(raw.get("vocabulary")),
            _int_or_none(raw.get("parameters")),
            str(raw["device"]) if raw.get("device") else None,
            _fits(raw.get("fits")) if state == "failed" else None,
            str(raw["arithmetic"]) if raw.get("arithmetic") else None,
        )

    def last_metric(self) -> Metric | None:
        """The last whole line of metrics.jsonl, found from the file's end, past damage of up to `DAMAGED` bytes."""
        span = 8192
        try:
            with self.metrics_path.open("rb") as file:
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
            shutil.rmtree(self.path)
        except OSError as error:
            raise UserError(f"can't delete {self.path}: {error.strerror or error}") from error


def _just_said(raw: dict[str, Any], processes: int) -> bool:
    """Whether a status was written a moment ago. By either clock: one jumps when someone sets it, the other begins anew
    with the machine. Several processes find each other before they take the lock."""
    grace = STARTING_GRACE * (2 if processes > 1 else 1)
    spans = (time.time() - _float(raw.get("time")), time.monotonic() - _float(raw.get("monotonic", -math.inf)))
    return any(abs(span) < grace for span in spans)


def _int_or_none(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _fits(value: Any) -> tuple[int, int] | None:
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) and n > 0 for n in value)):
        return None
    return value[0], value[1]


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
