"""The optimizers of a run, and the average of its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from tui_llm.llm.model import torch_private
from tui_llm.llm.model.cautious import CautiousAdamW, CautiousMuon
from tui_llm.llm.model.flat import FlatAdamW, FlatParameters
from tui_llm.llm.model.model import GPT
from tui_llm.training.run.settings import TrainingSettings

MOMENTUM_COLD, MOMENTUM = 0.85, 0.95


def optimizers(
    model: GPT, settings: TrainingSettings, device: torch.device, flat: FlatParameters | None = None
) -> list[torch.optim.Optimizer]:
    """Returns AdamW for all parameters; or Muon for the blocks' matrices (Jordan et al. 2024) and AdamW for the rest.

    With `flat`, AdamW for all parameters updates them at once. Both use the same learning rate and weight decay: Muon's update is scaled by 0.2 · √max(rows, columns), which gives
    it the RMS that AdamW's updates usually have (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).
    With `cautious_decay`, both decay as llm/model/cautious.py says.
    """
    matrices = model.matrices() if settings.optimizer == "muon" else []
    cautious = settings.cautious_decay == "on"
    rate, betas, decay = settings.learning_rate, (settings.beta1, settings.beta2), settings.weight_decay
    if flat is not None and not matrices:
        return [FlatAdamW(flat, decay, rate, betas, cautious=cautious)]
    groups, fused = model.decay_groups(decay, without=matrices), device.type in ("cuda", "cpu")
    adamw: torch.optim.Optimizer
    if cautious:
        adamw = CautiousAdamW(groups, rate, betas, fused)
    else:
        adamw = torch_private.AdamW(groups, lr=rate, betas=betas, fused=fused)
    if not matrices:
        return [adamw]
    made = CautiousMuon if cautious else torch_private.Muon
    return [made(matrices, lr=rate, weight_decay=decay, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"), adamw]


def momentum(settings: TrainingSettings, step: int) -> float:
    """Muon's momentum at `step` (from 1): it rises linearly from 0.85 to 0.95, which it has after `momentum_warmup_steps`
    steps, as in the speed runs of modded-nanogpt (Jordan et al. 2024), which take 300."""
    count = settings.momentum_warmup_steps
    share = min(1.0, (step - 1) / count) if count else 1.0
    return (1 - share) * MOMENTUM_COLD + share * MOMENTUM


class WeightAverage:
    """The exponential moving average of a model's weights: w̄ ← β · w̄ + (1 − β) · w after each step.

    β is min(`decay`, (1 + n) ÷ (10 + n)) in update n (from 1), so that the random weights of the beginning don't stay
    (as `tf.train.ExponentialMovingAverage` with `num_updates`). It has the device and the shards of the weights.
    """

    def __init__(self, model: GPT, decay: float, flat: FlatParameters | None = None) -> None:
        self.model, self.decay = model, decay
        self.updates = 0
        self._flat = None if flat is None else (flat.weights.clone(), flat.weights)
        self.tensors: dict[str, Tensor] = {
            name: p.detach().clone() if flat is None or self._flat is None else flat.view(self._flat[0], name)
            for name, p in model.weights()
        }
        self._inside = False  # the model has the average, and `tensors` the weights that are trained

    @torch.no_grad()
    def update(self) -> None:
        """Adds the weights after a step."""
        self.updates += 1
        rate = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for mine, theirs in [self._flat] if self._flat is not None else self._pairs():
            mine.lerp_(theirs, rate)

    @contextlib.contextmanager
    def in_model(self) -> Iterator[None]:
        """While the body runs, the model has the average for weights; then again its own, bit for bit."""
        if self._inside:  # an evaluation within one
            yield
            return
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @property
    def exchanged(self) -> bool:
        """Whether the model has the average's weights now."""
        return self._inside

    @torch.no_grad()
    def _exchange(self) -> None:
        self._inside = not self._inside
        for mine, theirs in self._pairs():
            kept = mine.clone()
            mine.copy_(theirs)
            theirs.copy_(kept)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.tensors[name], p) for name, p in self.model.weights()]

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Takes an average that was saved."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
        self.updates = updates
