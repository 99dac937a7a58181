"""Cautious weight decay: AdamW and Muon that decay a weight only where the update moves it towards 0 as well.

    x ← x − η · (u + λ · [u · x ≥ 0] · x)

u is the optimizer's update, η the learning rate, λ the weight decay (Chen et al. 2025, "Cautious Weight Decay",
arXiv:2510.12402, equation 1). Decoupled weight decay is the same with 1 for the bracket.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tui_llm.llm.model import torch_private


def decay(weights: Tensor, direction: Tensor, amount: float) -> None:
    """Multiplies each weight by 1 − `amount`, in place, if `direction` does not have the opposite sign.

    `direction` has the signs of the update that is subtracted; `amount` is the learning rate times the weight decay.
    """
    weights.mul_(1 - amount * (direction * weights >= 0))


class CautiousAdamW(torch_private.AdamW):
    """AdamW with cautious weight decay. The sign of its update is that of the mean gradient, so that the decay can
    precede the update, as in `torch.optim.AdamW`."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], fused: bool) -> None:
        ours = [{**group, "weight_decay": 0.0, "cautious": group["weight_decay"]} for group in groups]
        super().__init__(ours, lr=lr, betas=betas, fused=fused)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates the weights."""
        for group in self.param_groups:
            for p in group["params"] if group["cautious"] else ():
                if p.grad is not None:
                    mean = self.state[p]["exp_avg"] if self.state[p] else torch.zeros_like(p)
                    decay(p, mean.lerp(p.grad, 1 - group["betas"][0]), group["lr"] * group["cautious"])
        super().step()


class CautiousMuon(torch_private.Muon):
    """Muon with cautious weight decay; with Nesterov momentum, as `torch.optim.Muon` by default."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates the weights."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                buffer = self.state[p]["momentum_buffer"]
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update, rate = torch_private.muon_update(p.grad.lerp(buffer, group["momentum"]), group)
                decay(p, update, group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-rate)
