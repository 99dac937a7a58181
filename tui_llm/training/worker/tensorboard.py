"""TensorBoard event files of the numbers in metrics.jsonl. Needs the extra `tensorboard`."""

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
    "row_loss": "loss/largest_row",
    "lr": "learning_rate",
    "grad_norm": "gradient_norm",
    "tokens_per_second": "speed/tokens_per_second",
    "memory_bytes": "memory/bytes",
    "gpu_use": "gpu/use",
    "margin": "margin/batch",
    "val_margin": "margin/held_out",
    "agreement": "agreement/batch",
    "val_agreement": "agreement/held_out",
    "chosen_reward": "rewards/chosen",
    "rejected_reward": "rewards/rejected",
    "reward": "reward/batch",
    "val_reward": "reward/evaluation",
    "reward_std": "reward/std",
    "kl": "kl/batch",
    "val_kl": "kl/held_out",
}
"""A metric's name in metrics.jsonl → its tag."""


def scalars(line: Any) -> tuple[int, float, dict[str, float]] | None:
    """Converts a metrics.jsonl object to (step, seconds since the epoch, {tag: value}); None if it is damaged."""
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
                continue  # damaged or incomplete
    except OSError:
        return


class Events:
    """Writes event files into `folder`. TensorBoard ignores existing events of steps after `done` (`purge_step`)."""

    def __init__(self, folder: Path, done: int = 0) -> None:
        check_tensorboard()
        try:
            # Imported here, since it takes a second and few runs need it.
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
        """Adds one object of metrics.jsonl; a damaged one is ignored."""
        found = scalars(line)
        if found is not None:
            step, when, values = found
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step, walltime=when)

    def flush(self) -> None:
        """Flushes to disk. Called before a checkpoint, since a resumed run does not repeat the steps before it."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()


def export(metrics: Path, folder: Path) -> int:
    """Writes event files of a complete metrics.jsonl. Returns the number of lines exported."""
    events, count = Events(folder), 0
    try:
        for line in _lines(metrics):
            events.add(line)
            count += scalars(line) is not None
    finally:
        events.close()
    return count


def begin(run: Run, done: int) -> Events:
    """Returns the writer for a run that has made `done` steps.

    If there are no event files for these steps yet, because TensorBoard was enabled later, they are written first.
    Raises `UserError` if TensorBoard is not installed.
    """
    check_tensorboard()
    folder = run.path / FOLDER
    # TensorBoard reads event files in the order of the timestamps in their names: a newer one must sort last.
    newest = max((_second(path) for path in folder.glob("events.out.tfevents.*")), default=-1)
    # a new run; or the newest file is from this second or, by a clock change, from the future
    if not done or newest >= int(time.time()):
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
