"""A run's state, from status.json, the lock and metrics.jsonl."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui_llm.training.run import run_lock
from tui_llm.training.run.config import RunConfig

# Seconds that a new worker whose pid is not known may take to acquire its lock: importing torch is slow on a busy machine.
STARTING_GRACE = 60.0
LONGEST = 2000  # characters of a string in status.json
MOST = 2**53  # of a count: larger integers are not exact in every JSON reader (float64)
STATES = ("new", "starting", "running", "paused", "finished", "stopped", "failed", "died")


@dataclass(frozen=True, slots=True)
class Status:
    """A run's state.

    `state` is starting, running, paused, finished, stopped, failed, died (its worker is gone but did not end properly),
    new (never started), or newer (made by a later tui-llm, which alone can read it). `message` is one line about what
    is happening or went wrong, not sanitized for a terminal. `step` is the last step, `steps` the number configured.
    `vocabulary` and `parameters` are known once the model is built. `fits` is (batch size, gradient
    accumulation steps) that should fit into memory, after a run has run out of it.
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
    def summary(self) -> str:
        """The message, followed by `problem` unless it contains it: one line, not sanitized for a terminal."""
        wrong = f"! {self.problem}" if self.problem and self.problem not in self.message else ""
        return " ".join(f"{self.message} {wrong}".split())


def parse_status(
    raw: dict[str, Any], config: RunConfig, step: int, *, problem: str, alive: bool, starting: bool, log_path: Path
) -> Status:
    """Returns the state that `raw`, the content of status.json, describes. Never raises because of that content.

    `alive`: a worker holds the run's lock. `starting`: see `is_starting`. `step` is the last step in metrics.jsonl.
    """
    state = _state(raw, alive, starting)
    message = _text(raw.get("message")) or ""
    if state == "died":
        message = f"its worker ended without a message; resume it from its last checkpoint (log: {log_path})"
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


def _state(raw: dict[str, Any], alive: bool, starting: bool) -> str:
    """Returns the state that the worker wrote last, unless the lock contradicts it."""
    written = raw.get("state")
    state = written if isinstance(written, str) and written in STATES else "new"
    if alive:
        return "starting" if state in ("new", "died") else state
    if starting:
        return "starting"  # the worker has not acquired its lock yet
    return "died" if state in ("starting", "running", "paused") else state


def starting_pid(facts: Mapping[str, Any], control: Mapping[str, Any], folder: Path, processes: int) -> int | None:
    """The pid of a worker that was started and has not acquired the run's lock yet: importing torch takes seconds. None if
    there is none, or its pid is not known.

    `facts` and `control` are the contents of status.json and control.json, which `launch.start` writes.
    """
    pid = _recorded_pid(control)
    if facts.get("state") != "starting" or pid is None:
        return None
    if Path("/proc/self/cmdline").exists():
        return pid if run_lock.is_worker(pid, folder) else None
    return pid if _just_written(facts, processes) and run_lock.exists(pid) else None


def is_starting(facts: Mapping[str, Any], control: Mapping[str, Any], folder: Path, processes: int) -> bool:
    """Whether a worker is starting. Where its pid could not be recorded, it counts as starting for `STARTING_GRACE`."""
    if _recorded_pid(control) is None:
        return facts.get("state") == "starting" and _just_written(facts, processes)
    return starting_pid(facts, control, folder, processes) is not None


def _recorded_pid(control: Mapping[str, Any]) -> int | None:
    pid = control.get("starting")
    return pid if isinstance(pid, int) and not isinstance(pid, bool) else None


def _just_written(raw: Mapping[str, Any], processes: int) -> bool:
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
