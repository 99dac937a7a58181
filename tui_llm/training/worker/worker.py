"""The state of a worker process (its run, ranks, lock, requests to stop), and how it reports: status and log."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

from tui_llm.common.display import visible
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import cost
from tui_llm.training.run.run import Run
from tui_llm.training.run.run_lock import LockLost, RunLock
from tui_llm.training.run.status import STARTING_GRACE, number
from tui_llm.training.worker import distributed, measurements
from tui_llm.training.worker.distributed import Stopped

OUT_OF_MEMORY = "out of memory; not even one row at a time fits: start a new run with a smaller block size or model"
REPORT_EVERY = 0.5  # seconds between two reports of the preparation's progress


def started(run: Run) -> float:
    """When this process was started, on the monotonic clock: what `launch.start` wrote, since importing torch takes seconds."""
    now, facts = time.monotonic(), run.facts()
    written = number(facts.get("monotonic"))
    recent = facts.get("state") == "starting" and written is not None and 0 <= now - written < STARTING_GRACE
    return written if recent and written is not None else now


class PausedClock(Protocol):
    """A clock that stops while the run is paused."""

    def hold(self) -> None: ...
    def go_on(self) -> None: ...


class Worker:
    """The state of one worker process. `records_corpus`: whether it may write the corpus's digest into the run, if that has none."""

    records_corpus = True

    def __init__(self, run: Run) -> None:
        self.run, self.began = run, started(run)
        self.config = run.config()
        self.settings = self.config.settings
        self.ranks = distributed.of_this_process(self.config.shard)
        self.stop_requested = False
        self.lock: RunLock | None = None  # held by rank 0 only
        self.done = False
        self.lost = ""  # how the lock was lost; empty while it is held
        self.notice = ""  # what is wrong while it runs; said with every message of that state
        self.facts: dict[str, Any] = {}  # written into status.json with every state
        self.shape: GPTConfig | None = None  # once known
        self._reported = 0.0
        self.clock: PausedClock | None = None  # of a run with a time budget

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Signal handler: asks the worker to save and exit at the next step."""
        self.stop_requested = True

    def check_lock(self) -> None:
        """Ensures that no two workers train the run.

        If the lock file was deleted or replaced, this worker saves and exits. Raises `LockLost` if another worker may
        have started, since then even saving is unsafe.
        """
        if self.lost or self.lock is None or not self.lock.lost:
            return
        self.lost = (
            f"the lock of run {self.run.name}, {self.lock.path}, was deleted or replaced while it was being trained"
        )
        self.stop_requested = True
        if not self.lock.alone:
            raise LockLost(f"{self.lost}; nothing more is written, since another worker may be training it")
        log(f"{self.lost}; saving, then exiting")

    def report(self, state: str, message: str = "") -> None:
        """Writes the status and a log line; only on rank 0."""
        if not self.ranks.first:
            return
        if state == "running" and self.notice:
            message = f"{message.rstrip('. ')}. {self.notice}" if message else self.notice
        log(f"{state} {message}")  # log first: on a full disk, writing the status may fail
        self.run.write_status(state, message, **self.facts)

    def report_progress(self, message: str) -> None:
        """Reports the progress of the preparation, at most every `REPORT_EVERY` seconds.

        Raises `Stopped` if the worker is told to stop.
        """
        self.check_lock()
        if self.must_stop(self.run.control()):
            raise Stopped
        if self.ranks.first and time.monotonic() - self._reported > REPORT_EVERY:
            self._reported = time.monotonic()
            self.run.write_status("starting", message, **self.facts)

    def must_stop(self, control: dict[str, Any]) -> bool:
        """Whether a signal, or `control`, the content of control.json, asks the worker to stop."""
        return self.stop_requested or bool(control.get("stop"))

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
        saved = self.run.checkpoints()
        return (
            f"out of memory at batch {s.batch_size}: try --batch-size {fits[0]} --grad-accumulation-steps {fits[1]} "
            f"(the same global batch){f'; saved at step {saved[-1][0]:,}' if saved else ''}"
        )


def log(line: str) -> None:
    """Writes a line to stdout, the run's log.

    Control characters in it, for example from file names, are made visible.
    """
    with suppress(OSError):  # a full disk: the status reports it
        os.write(1, f"{time.strftime('%F %T')} {visible(line, newlines=True)}\n".encode())
