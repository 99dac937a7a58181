"""metrics.jsonl: a line for each step, and reading them as they come."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path


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


class MetricsTail:
    """Reads a metrics.jsonl as it grows: each `new()` gives the lines added since. Starts again where a resumed run
    has cut the file back (`restarted` is then True for that call). Damaged lines are passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.restarted = False
        self.more = False  # whether `limit` left something unread
        self._identity: tuple[int, int] | None = None

    def skip(self) -> None:
        """Passes over the lines that are there already."""
        self.new(1 << 20)
        while self.more:
            self.new(1 << 20)

    def new(self, limit: int = -1) -> list[Metric]:
        """The lines added since the last call; with `limit`, those in the next `limit` bytes, and `more` says whether
        there is more to read."""
        self.restarted = self.more = False
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                identity = (stat.st_dev, stat.st_ino)
                if stat.st_size < self.offset or (self._identity is not None and identity != self._identity):
                    self.offset, self.restarted = 0, True
                self._identity = identity
                file.seek(self.offset)
                data = file.read(limit)
        except OSError:
            return []
        end = data.rfind(b"\n") + 1  # a half-written last line waits for its end
        self.more = len(data) == limit
        if self.more and not end:
            end = len(data)  # no such line is a metric
        self.offset += end
        return [metric for line in data[:end].split(b"\n") if (metric := parse_metric(line))]


def parse_metric(line: bytes) -> Metric | None:
    try:
        value = json.loads(line)
        val_loss = value.get("val_loss")
        return Metric(
            int(value["step"]),
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
