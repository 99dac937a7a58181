"""What of a run must survive a fault or a kill: its two newest checkpoints, and the steps that lead to the newest one.

Training is deterministic: a worker that ignored the checkpoints and began anew would end with the same numbers. What it
computed again shows in the times in metrics.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from tui_llm.common.errors import UserError
from tui_llm.llm.model import intact
from tui_llm.training.run.run import Run

TWO = 2  # checkpoints that are kept, as docs/reliability.md promises


def _lines(run: Run) -> list[bytes]:
    """The complete lines of metrics.jsonl; those that a kill or a fault cut off are no steps."""
    data = run.metrics_path.read_bytes() if run.metrics_path.exists() else b""
    found = []
    for line in data.split(b"\n")[:-1]:
        try:
            json.loads(line)
        except ValueError:  # half a line, and after it the whole one of a worker that went on
            continue
        found.append(line)
    return found


def _step(line: bytes) -> int:
    return int(json.loads(line)["step"])


def intact_steps(run: Run) -> list[int]:
    found = []
    for step, folder in run.checkpoints():
        try:
            intact.check(folder)
        except UserError:
            continue
        found.append(step)
    return found


def lost_checkpoints(run: Run) -> Iterator[str]:
    """Names each of the two newest checkpoints that were complete and are not any more.

    One of step n was complete before the metrics of a later step were written.
    """
    last = max(map(_step, _lines(run)), default=0)
    config = run.config()
    whole = intact_steps(run)
    every = config.settings.checkpoint_every
    due = {step for step in range(every, last, every) if step > config.parent_step}
    for step in sorted({*due, *whole})[-TWO:]:
        if step not in whole:
            yield f"checkpoint-{step} of run {run.name} is lost, after step {last}"


@dataclass(frozen=True)
class Kept:
    """The newest intact checkpoint's step, and the metrics up to it: what the next worker must continue from."""

    step: int
    lines: tuple[bytes, ...]

    @classmethod
    def of(cls, run: Run) -> Kept:
        step = max(intact_steps(run), default=0)
        return cls(step, tuple(line for line in _lines(run) if _step(line) <= step))

    def repeated(self, run: Run) -> Iterator[str]:
        """Says so if a worker since then has not continued after `step`: if it wrote an earlier step again, or lost one."""
        first = run.config().parent_step + 1
        steps = [_step(line) for line in self.lines]
        if steps != list(range(first, self.step + 1)):
            yield f"checkpoint-{self.step} was written before the metrics of the steps up to it: {steps}"
        now = _lines(run)
        for number, line in enumerate(self.lines):
            if number >= len(now) or now[number] != line:
                yield f"step {_step(line)} was computed again, though checkpoint-{self.step} was intact"
                return
