"""TensorBoard's event files, of the same numbers as metrics.jsonl. Needs the extra `tensorboard`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.training.plan.extras import check_tensorboard
from tui_llm.training.run import jsonl
from tui_llm.training.run.run import Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
TAGS = {
    "loss": "loss/training",
    "val_loss": "loss/validation",
    "lr": "learning_rate",
    "grad_norm": "gradient_norm",
    "tokens_per_second": "speed/tokens_per_second",
    "memory_bytes": "memory/bytes",
    "gpu_use": "gpu/use",
}
"""A metric's name in metrics.jsonl → its tag."""


def scalars(line: Any) -> tuple[int, float, dict[str, float]] | None:
    """A metrics.jsonl line → (step, seconds since the epoch, {tag: value}); None where it is damaged."""
    try:
        step, when = int(line["step"]), float(line["time"])
        values = {tag: float(line[name]) for name, tag in TAGS.items() if line.get(name) is not None}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    return (step, when, values) if 0 <= step < 2**63 and math.isfinite(when) else None


def _lines(path: Path) -> Iterator[Any]:
    try:
        for line in jsonl.lines(path):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                continue  # damaged, or half written
    except OSError:
        return


class Events:
    """Writes event files into `folder`. What is there already of steps after `done` is no longer seen (`purge_step`)."""

    def __init__(self, folder: Path, done: int = 0) -> None:
        check_tensorboard()
        try:
            # Not SummaryWriter at the file's top: it takes a second to import, and few ask for it.
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(f"TensorBoard can't be used: {error}; pip install 'tui-llm[tensorboard]'") from error
        try:
            self._writer: SummaryWriter = SummaryWriter(
                str(folder), purge_step=done + 1 if done else None, flush_secs=30
            )
        except OSError as error:
            raise UserError(f"can't write in {folder}: {error.strerror or error}") from error

    def add(self, line: Any) -> None:
        """One line of metrics.jsonl, as read; nothing of a damaged one."""
        found = scalars(line)
        if found is not None:
            step, when, values = found
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step, walltime=when)

    def flush(self) -> None:
        """Onto the disk: before a checkpoint, so that no step is lost which a resumed run won't make again."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def export(metrics: Path, folder: Path) -> int:
    """Writes the event files of a whole metrics.jsonl; returns how many lines went into them."""
    events, count = Events(folder), 0
    try:
        for line in _lines(metrics):
            events.add(line)
            count += scalars(line) is not None
    finally:
        events.close()
    return count


def begin(run: Run, done: int) -> Events:
    """The writer of a run that has `done` steps behind it. Lines that have no events yet get them first: TensorBoard may
    have been asked for on the way. Raises `UserError` where it isn't installed."""
    check_tensorboard()
    folder = run.path / FOLDER
    # TensorBoard reads event files in the order of the seconds in their names: a younger one must sort last.
    newest = max((_second(path) for path in folder.glob("events.out.tfevents.*")), default=-1)
    if not done or newest >= int(time.time()):  # begun anew; or written this very second, or the clock was put back
        storage.rmtree(folder, ignore_errors=True)
        newest = -1
    if newest < 0 and done:
        export(run.metrics_path, folder)
        while int(time.time()) <= max(_second(path) for path in folder.glob("events.out.tfevents.*")):
            time.sleep(0.05)
    return Events(folder, done)


def _second(path: Path) -> int:
    try:
        return int(path.name.split(".")[3])
    except (IndexError, ValueError):
        return -1
