"""metrics.jsonl: one line for each step, and an incremental reader."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from tui_llm.training.run.jsonl import Tail

LARGEST_STEP = 10**12


@dataclass(frozen=True, slots=True)
class Metric:
    """The metrics of one optimizer step. Losses are in nats per token.

    `loss` is the batch's, before the update; `val_loss` is after it. `lr` is the learning rate of the step, `grad_norm`
    the L2 norm of the whole gradient before clipping. `val_loss`, `memory_bytes` (held by the worker; on a CUDA device,
    the peak of allocated memory) and `gpu_use` (the GPU's utilization, 0 to 1) are None at steps where they were not
    measured.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens_per_second: float
    val_loss: float | None = None
    time: float = 0.0  # seconds since the epoch, when the step ended
    memory_bytes: float | None = None
    gpu_use: float | None = None


class MetricsTail(Tail[Metric]):
    """Reads the lines of a metrics.jsonl as it grows."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, parse_metric)


def metric_line(metric: Metric) -> dict[str, float | None]:
    """The object to write as a line of metrics.jsonl. Leaves out `memory_bytes` and `gpu_use` where they are None, as
    at most steps."""
    line = dataclasses.asdict(metric)
    return {name: value for name, value in line.items() if value is not None or name == "val_loss"}


def parse_metric(line: bytes) -> Metric | None:
    """Parses a line of metrics.jsonl; returns None if it is damaged."""
    try:
        value = json.loads(line)
        val_loss, step = value.get("val_loss"), int(value["step"])
        if not 0 <= step < LARGEST_STEP:
            return None
        return Metric(
            step,
            float(value["loss"]),
            float(value["lr"]),
            float(value["grad_norm"]),
            float(value["tokens_per_second"]),
            None if val_loss is None else float(val_loss),
            float(value.get("time", 0.0)),
            *(None if value.get(name) is None else float(value[name]) for name in ("memory_bytes", "gpu_use")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
