"""Read pins, lens, head scores and a sample of each checkpoint in a foreign folder, in a subprocess. Does not import torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tui_llm.common.errors import UserError
from tui_llm.facts.pin import Pin
from tui_llm.training.plan import processes
from tui_llm.training.run.foreign.foreign_run import ForeignRun


@dataclass(frozen=True, slots=True)
class ForeignProgress:
    """What the process is doing: checkpoint number `at` of `of`, from 1. `read`: a checkpoint has been read since the last
    record, so that there is something new to show."""

    text: str
    at: int = 0
    of: int = 0
    read: bool = False


class ForeignProcess:
    """The subprocess that reads the checkpoints of `run`, which the constructor starts.

    `records` gives its progress; `cancel` kills it. What it has read is kept in the cache, and is not computed again. `pins` are
    read besides the run's and the user's. Raises `UserError` if there are no checkpoints, or it can't be started.
    """

    def __init__(self, run: ForeignRun, pins: Sequence[Pin] = (), *, device: str = "auto") -> None:
        self.cancelled = False
        if not run.steps():
            raise UserError(f"{run.source} has no checkpoints to read; its curves: tui-llm runs curves {run.source}")
        run.use_pins(pins)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tui_llm.training.worker.foreign"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=processes.child_environment(), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise UserError(f"can't start a process to read the checkpoints: {error.strerror or error}") from error
        assert self.process.stdin is not None
        with suppress(OSError):  # it has ended already: `records` reports it
            self.process.stdin.write(json.dumps({"source": str(run.source), "device": device}).encode())
            self.process.stdin.close()

    def cancel(self) -> None:
        """Kills the process; `records` then ends."""
        self.cancelled = True
        self.process.kill()

    def records(self) -> Iterator[ForeignProgress]:
        """Yields the progress until all checkpoints are read. Raises `UserError` with the reason if they can't be."""
        done = False
        try:
            for raw in processes.json_lines(self.process):
                done = done or "done" in raw
                if "problem" in raw:
                    raise UserError(str(raw["problem"]))
                if "text" in raw:
                    yield ForeignProgress(
                        str(raw["text"]), int(raw.get("at", 0)), int(raw.get("of", 0)), bool(raw.get("read"))
                    )
        finally:
            self.process.kill()
            self.process.wait()
        if not done and not self.cancelled:
            code = self.process.returncode
            killed = ", perhaps for lack of memory" if code == -9 else ""
            raise UserError(
                f"the process that reads the checkpoints ended early (exit status {code}{killed}); what it had read is kept: "
                "try again"
            )
