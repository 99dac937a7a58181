"""metrics.jsonl: one line for each step, and an incremental reader."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui_llm.facts.machine_reading import MachineReading, as_json, parse_machine
from tui_llm.training.run.jsonl import Tail

LARGEST_STEP = 10**12
LARGEST_FLOAT = float.fromhex("0x1.fffffep+127")  # of float32


def float32(value: Any) -> float:
    """A number that float32 holds, as all that a run computes; NaN and infinity are those of a run that diverged. Raises
    ValueError for a larger one, of a damaged file: its square, or a sum with it, may be no number."""
    found = float(value)
    if LARGEST_FLOAT < abs(found) < math.inf:
        raise ValueError(f"{found} is beyond float32")
    return found


@dataclass(frozen=True, slots=True)
class Metric:
    """The metrics of one optimizer step. Losses are in nats per token, but in runs that learn from answers: see `loss_meaning`
    of `quantities.py`.

    `loss` is the batch's, before the update; `val_loss` is after it. `lr` is the learning rate of the step, `grad_norm`
    the L2 norm of the whole gradient before clipping. `val_loss`, `memory_bytes` (held by the worker; on a CUDA device,
    the peak of allocated memory) and `gpu_use` (the GPU's utilization, 0 to 1) are None at steps where they were not
    measured, as is `machine`, the gauges of the run's GPUs and CPU, at most some seconds old.

    Of the mean losses of the batch's rows, on text: `row_loss` is the largest one and `row` its row, from 0 in the order of the
    step's batches; `row_median` is their median, `row_spread` 1.4826 × their median absolute deviation. None for a single
    row, and in runs of earlier versions.

    The fields from `margin` to `val_kl`, and `flops_per_token`, are of runs that learn from answers; None elsewhere. Those that
    begin with `val_` are of the held-out rows, after the update, the others of the batch, before it.

    flops_per_token: the operations of the step for each token that `tokens_per_second` counts. It differs by step, as does the
    share of prompts, on which the output head is not computed; on text it does not, and is in status.json.
    margin, chosen_reward, rejected_reward: means over the pairs; a reward is β (ln π − ln ref) of an answer, a margin the chosen
    reward minus the rejected one.
    agreement: the share of pairs whose margin is above 0.
    reward: the mean score of the drawn answers. reward_std: the mean over the prompts of their scores' standard deviation; where
    it is 0, there is nothing to learn and no step is taken.
    kl, val_kl: KL(π ‖ the start model) in nats per answer token, estimated from the drawn tokens (k3, see
    `llm/learn/policy_gradient.py`); `val_kl` of pairs over the whole vocabulary.
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
    margin: float | None = None
    agreement: float | None = None
    chosen_reward: float | None = None
    rejected_reward: float | None = None
    reward: float | None = None
    reward_std: float | None = None
    kl: float | None = None
    val_margin: float | None = None
    val_agreement: float | None = None
    val_reward: float | None = None
    val_kl: float | None = None
    machine: MachineReading | None = None
    row_loss: float | None = None
    row: int | None = None
    row_median: float | None = None
    row_spread: float | None = None
    flops_per_token: float | None = None


_PLAIN = tuple(field.name for field in dataclasses.fields(Metric) if field.name != "machine")
OPTIONAL = tuple(
    field.name
    for field in dataclasses.fields(Metric)
    if field.default is None and field.name not in ("val_loss", "machine", "row")
)


class MetricsTail(Tail[Metric]):
    """Reads the lines of a metrics.jsonl as it grows."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, parse_metric)


def metric_line(metric: Metric) -> dict[str, Any]:
    """The object to write as a line of metrics.jsonl. Leaves out the fields of `OPTIONAL` that are None."""
    values = {name: getattr(metric, name) for name in _PLAIN}  # `asdict` takes far longer, at each step
    line: dict[str, Any] = {name: value for name, value in values.items() if value is not None or name == "val_loss"}
    if metric.machine is not None:
        line["machine"] = as_json(metric.machine)
    return line


def parse_metric(line: bytes) -> Metric | None:
    """Parses a line of metrics.jsonl; returns None if it is damaged."""
    try:
        value = json.loads(line)
        val_loss, step = value.get("val_loss"), int(value["step"])
        if not 0 <= step < LARGEST_STEP:
            return None
        return Metric(
            step,
            float32(value["loss"]),
            float32(value["lr"]),
            float32(value["grad_norm"]),
            float32(value["tokens_per_second"]),
            None if val_loss is None else float32(val_loss),
            float(value.get("time", 0.0)),
            **{name: float32(value[name]) for name in OPTIONAL if value.get(name) is not None},
            machine=parse_machine(value.get("machine")),
            row=None if value.get("row") is None else int(value["row"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
