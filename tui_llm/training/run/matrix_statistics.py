"""Statistics of a run's matrices, in matrices.jsonl: one line every `every(steps)` steps. Does not import torch.

    {"step": 40, "gradient": {"embedding": [0.21], "q": [0.013, 0.011], …}, "update": {"embedding": [0.0021], …},
     "activation": [0.31, 0.38]}

A list has a number a layer, or one number for what is not in a layer. The kinds are those of `KINDS`; a head that is tied
to the embedding is part of the embedding.

gradient: the L2 norm of the loss's gradient by these weights, before clipping. The squares of all of a line's gradient
norms sum to `grad_norm` squared, of the same step in metrics.jsonl.
update: ‖ΔW‖ ÷ ‖W‖ (Frobenius norms): the step's change of the weights, weight decay included, relative to the weights
before it. null where the weights are all 0.
activation: the RMS of each block's output (the residual stream after it), before the update and without dropout, over the
first rows of the step's batch (see `rows`); a run that learns from answers: over its first prompt.

Numbers have six significant digits; null is one that is not finite. Runs of earlier versions have no such file, nor have runs whose weights are sharded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui_llm.training.run.jsonl import Tail, parsed
from tui_llm.training.run.metrics import LARGEST_STEP

EVERY = 20  # steps between two lines
MOST_LINES = 2000  # of a run: a longer one has a line less often, so that its file stays small
MOST_LAYERS = 1024

KINDS: dict[str, str] = {
    "embedding": "embedding",
    "positions": "positions",
    "q": "q",
    "k": "k",
    "v": "v",
    "attention_output": "attention output",
    "mlp_up": "MLP up",
    "mlp_down": "MLP down",
    "head": "head",
    "vectors": "biases & norms",
    "final_norm": "final norm",
}
"""Kinds of weights and their names on screen. `vectors` are a layer's biases and LayerNorms together."""


@dataclass(frozen=True, slots=True)
class MatrixStatistics:
    """A line of matrices.jsonl. Values by kind, a number a layer; NaN where the line has null."""

    step: int
    gradient: Mapping[str, tuple[float, ...]]
    update: Mapping[str, tuple[float, ...]]
    activation: tuple[float, ...] = ()


class MatrixStatisticsTail(Tail[MatrixStatistics]):
    """Reads the lines of a matrices.jsonl as it grows; damaged lines are skipped."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, lambda line: parsed(line, parse))


def every(steps: int) -> int:
    """Steps between two lines of a run of `steps` steps."""
    return max(EVERY, math.ceil(steps / MOST_LINES))


def due(step: int, steps: int) -> bool:
    """Whether step `step` of `steps` gets a line: the first, the last, and those in between at even distances."""
    return step in (1, steps) or step % every(steps) == 0


def rows(batch_size: int) -> int:
    """How many rows of a batch the activation scale is measured on: a sixteenth, so that it costs little."""
    return max(1, batch_size // 16)


def line(statistics: MatrixStatistics) -> dict[str, Any]:
    """The JSON object of a line; `parse` reads it."""
    return {
        "step": statistics.step,
        "gradient": {kind: _rounded(values) for kind, values in statistics.gradient.items()},
        "update": {kind: _rounded(values) for kind, values in statistics.update.items()},
        "activation": _rounded(statistics.activation),
    }


def _rounded(values: tuple[float, ...]) -> list[float | None]:
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def parse(value: Any) -> MatrixStatistics:
    """Raises ValueError, TypeError, KeyError or AttributeError if the object is damaged."""
    step = int(value["step"])
    if not 0 <= step < LARGEST_STEP:
        raise ValueError("no such step")
    gradient, update = (_by_kind(value.get(name) or {}) for name in ("gradient", "update"))
    return MatrixStatistics(step, gradient, update, _numbers(value.get("activation")))


def _by_kind(value: Any) -> dict[str, tuple[float, ...]]:
    return {kind: _numbers(value[kind]) for kind in KINDS if kind in value}


def _numbers(value: Any) -> tuple[float, ...]:
    found = tuple(math.nan if one is None else float(one) for one in value or ())
    if len(found) > MOST_LAYERS or any(one < 0 for one in found):
        raise ValueError("not a number above 0 for each layer")
    return found
