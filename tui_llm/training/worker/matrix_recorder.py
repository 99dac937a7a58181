"""Measures the statistics of matrices.jsonl (run/matrix_statistics.py) in the steps that have a line.

The weights, their gradients and the random state are only read, so the training continues exactly as without it. While a
step is measured, a copy of the weights is held from the end of the backward pass, when the activations are freed, to the
end of the update.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tui_llm.llm.model.layouts import split_rows
from tui_llm.llm.model.model import GPT
from tui_llm.training.run import matrix_statistics
from tui_llm.training.run.matrix_statistics import MatrixStatistics

_KINDS = {
    "tokens.weight": "embedding",
    "positions.weight": "positions",
    "head.weight": "head",
    "attention.out.weight": "attention_output",
    "mlp.up.weight": "mlp_up",
    "mlp.down.weight": "mlp_down",
}

Sums = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows of a parameter that are counted together, and what they are."""

    kind: str
    layer: int
    rows: int


def _parts(name: str, parameter: Tensor, rows: tuple[int, int, int]) -> list[_Part]:
    """`rows`: those of queries, keys and values in their one matrix."""
    layer, rest = 0, name
    if name.startswith("blocks."):
        _, number, rest = name.split(".", 2)
        layer = int(number)
    if parameter.dim() < 2:
        return [_Part("vectors" if rest is not name else "final_norm", layer, 1)]
    if rest == "attention.qkv.weight":
        return [_Part(kind, layer, count) for kind, count in zip(("q", "k", "v"), rows, strict=True)]
    return [_Part(_KINDS[rest], layer, len(parameter))]


class MatrixRecorder:
    """Measures steps of a run of `steps` steps. Call `before` when the gradient is complete and not clipped, `after` when the
    weights are updated, then `take`."""

    def __init__(self, model: GPT, steps: int) -> None:
        self.model, self.steps = model, steps
        self.names, self.parameters = zip(*model.weights(), strict=True)
        rows = split_rows(model.config)
        parts = [part for name, one in model.weights() for part in _parts(name, one, rows)]
        self._starts = np.cumsum([0, *(part.rows for part in parts)])[:-1]
        self._layers = {part.kind: part.layer + 1 for part in parts}  # the last layer's part is the last
        self._parts = parts
        self._before: list[Tensor] = []
        self._step = 0  # the newest step that was measured
        self._gradient = self._weight = np.zeros(0)
        self._scales: list[Tensor] = []
        self._taken: MatrixStatistics | None = None
        self.seconds = 0.0  # that the last step's measurement took

    def due(self, step: int) -> bool:
        """Whether `step` is to be measured and was not yet: a step may have several updates."""
        return step != self._step and matrix_statistics.due(step, self.steps)

    # ── activations ──────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Forgets what was observed of a step that did not end."""
        self._scales = []

    def observe(self, rows: Tensor) -> None:
        """Adds a block's output, (N, C), to the activation scales."""
        self._scales.append(torch.linalg.vector_norm(torch.linalg.vector_norm(rows, dim=1)) / math.sqrt(rows.numel()))

    def run(self, ids: Tensor, autocast: contextlib.AbstractContextManager[object], products: torch.dtype | None) -> None:  # fmt: skip
        """Observes every block in a forward pass of ids (B, T), without dropout."""

        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self.observe(output.float().flatten(0, 1))

        hooks, training = [block.register_forward_hook(hook) for block in self.model.blocks], self.model.training
        try:
            self.model.eval()
            with torch.no_grad(), autocast:
                self.model.features(ids, products=products)
        finally:
            self.model.train(training)
            for one in hooks:
                one.remove()

    # ── an update ────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the time of the body to `seconds`."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began

    @torch.no_grad()
    def before(self, step: int) -> None:
        self._step = step
        self._gradient = self._sums([one.grad for one in self.parameters])
        self._weight = self._sums(self.parameters)
        self._before = [one.detach().clone() for one in self.parameters]

    @torch.no_grad()
    def after(self) -> None:
        for old, now in zip(self._before, self.parameters, strict=True):
            old.sub_(now)
        change, self._before = self._sums(self._before), []
        scales = torch.stack(self._scales).tolist() if self._scales else []
        self._scales = []
        with np.errstate(divide="ignore", invalid="ignore"):
            self._taken = MatrixStatistics(
                self._step,
                self._grouped(self._gradient, math.sqrt),
                self._grouped(np.stack((change, self._weight), 1), lambda pair: math.sqrt(pair[0] / pair[1])),
                tuple(scales),
            )

    def take(self) -> MatrixStatistics | None:
        """The statistics of the step that has just been made, once; None if it was not measured."""
        taken, self._taken = self._taken, None
        return taken

    def _sums(self, tensors: list[Tensor | None] | tuple[nn.Parameter, ...] | list[Tensor]) -> Sums:
        """The sum of squares of each part: of float32 rows, which are short, then in float64."""
        norms = [
            torch.zeros(part_rows, device=parameter.device)
            if one is None
            else torch.linalg.vector_norm(one.view(part_rows, -1), dim=1)
            for one, parameter in zip(tensors, self.parameters, strict=True)
            for part_rows in [len(parameter) if parameter.dim() > 1 else 1]
        ]
        rows = torch.cat(norms).cpu().numpy().astype(np.float64)
        sums: Sums = np.add.reduceat(rows * rows, self._starts)
        return sums

    def _grouped(self, sums: Sums, value: Callable[..., float]) -> dict[str, tuple[float, ...]]:
        """By kind and layer: `value` of the sums of its parts."""
        total: dict[str, list[Sums | float]] = {kind: [0.0] * layers for kind, layers in self._layers.items()}
        for part, one in zip(self._parts, sums, strict=True):
            total[part.kind][part.layer] = total[part.kind][part.layer] + one
        return {kind: tuple(float(value(one)) for one in layers) for kind, layers in total.items()}
