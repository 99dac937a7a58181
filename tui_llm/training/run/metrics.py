"""metrics.jsonl: a line for each step, and reading them as they come."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tui_llm.training.run.jsonl import Tail

LARGEST_STEP = 10**12


@dataclass(frozen=True, slots=True)
class Metric:
    """One step. Losses in nats per token; `lr` the learning rate used; `val_loss` where it was measured; so are
    `memory_bytes`, what the worker held (on a GPU: the most of the GPU's memory), and `gpu_use`, the GPU's busy share."""

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
    """The lines of a metrics.jsonl as it grows."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, parse_metric)


def parse_metric(line: bytes) -> Metric | None:
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
