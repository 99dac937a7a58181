"""What each row and each token of a batch contributes to the batch's gradient.

The batch's loss is the mean over its rows, so its gradient g is the mean of the rows' own gradients gᵣ, and

    ‖g‖ = Σᵣ (gᵣ · g ÷ ‖g‖) ÷ R

The terms are the rows' shares: exact, not an approximation, and negative for a row that pulls against the others. A row's
share is in turn the sum over its T tokens of ∇lossₜ · g ÷ ‖g‖ ÷ (R · T). These are the derivatives of the tokens' losses
in the direction g, so one forward pass with forward-mode differentiation gives all of them (`torch.func.jvp`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from tui_llm.llm.model.model import GPT


class RowGradients:
    """The shares of rows in a gradient of `model`'s weights, at those weights and without dropout.

    `gradient` has a tensor for each of `model.weights()`, by name; its scale does not matter. `rows` is R. `masked` is
    called after each backward pass to drop gradients that the training drops.
    """

    def __init__(
        self,
        model: GPT,
        gradient: dict[str, Tensor],
        rows: int,
        masked: Callable[[GPT], object] = lambda _: None,
    ) -> None:
        self.model, self._rows, self._masked = model.eval(), rows, masked
        norm = math.sqrt(sum(float(one.double().square().sum()) for one in _for_sums(gradient.values())))
        self._direction = {name: one / norm if norm else one for name, one in gradient.items()}

    def row(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """For the row x (1, T) with targets y (1, T): the norm of its own gradient ‖gᵣ‖, and its share of ‖g‖."""
        self.model.zero_grad(set_to_none=True)
        with torch.enable_grad():
            self.losses(x, y).mean().backward()
        self._masked(self.model)
        squares, product = 0.0, 0.0
        for name, parameter in self.model.weights():
            if parameter.grad is not None:
                own, direction = _for_sums((parameter.grad, self._direction[name]))
                squares += float(own.square().sum())
                product += float((own * direction).sum())
        self.model.zero_grad(set_to_none=True)
        return math.sqrt(squares), product / self._rows

    def tokens(self, x: Tensor, y: Tensor) -> list[float]:
        """The shares of ‖g‖ of the T targets of a row, as for `row`."""
        weights = {name: parameter.detach() for name, parameter in self.model.weights()}

        def losses(values: dict[str, Tensor]) -> Tensor:
            found: Tensor = functional_call(
                _Losses(self), {f"model.{name}": one for name, one in values.items()}, (x, y)
            )
            return found

        # Only this kernel of attention has a forward-mode derivative.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            slopes: Tensor = jvp(losses, (weights,), (self._direction,))[1]
        return [float(slope) / (self._rows * y.numel()) for slope in slopes.flatten().tolist()]

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """The losses (T,) of the targets of a row, in nats."""
        return _losses(self.model, x, y)


class _Losses(torch.nn.Module):
    """The losses as a module, for `functional_call`."""

    def __init__(self, owner: RowGradients) -> None:
        super().__init__()
        self.model = owner.model

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return _losses(self.model, x, y)


def _losses(model: GPT, x: Tensor, y: Tensor) -> Tensor:
    logits = model(x)[..., : model.used]  # (1, T, V)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")


def _for_sums(tensors: object) -> list[Tensor]:
    """The tensors in float64 where the device has it, so that sums over many weights stay exact."""
    return [one if one.device.type == "mps" else one.double() for one in tensors]  # type: ignore[attr-defined]
