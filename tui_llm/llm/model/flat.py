"""All parameters of a model in one buffer, their gradients in another, and AdamW's state in two more: a cast, a norm, a
clip and an update are then one operation each, instead of one for each parameter.

The parameters stay what they were (same objects, names and shapes); only their memory moves.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from tui_llm.llm.model import cautious as cautious_decay
from tui_llm.llm.model import torch_private
from tui_llm.llm.model.model import GPT

ALIGNED = 32  # numbers: each parameter begins at a multiple of 64 bytes, in bfloat16 too
ROW = 4096  # numbers: the norm is that of the rows' norms, so that float32 sums stay short


class FlatParameters:
    """The parameters of `model`, which must be on a CPU in float32, and their gradients.

    First the parameters with weight decay (matrices and embeddings, a block's matrices side by side), then biases, then
    LayerNorms. In between and at the end are zeros, which no update changes.

    weights, gradients: (P,) float32; `parameter.data` and, after `attach`, `parameter.grad` are views of them.
    decayed: number of leading numbers that get weight decay.
    """

    def __init__(self, model: GPT) -> None:
        ordered = sorted(model.weights(), key=lambda item: (item[1].dim() < 2, "norm" in item[0]))
        self._places: dict[str, tuple[int, torch.Size]] = {}
        end = self.decayed = 0
        for name, parameter in ordered:
            self._places[name] = end, parameter.shape
            end += -(-parameter.numel() // ALIGNED) * ALIGNED
            if parameter.dim() > 1:
                self.decayed = end
        self.weights, self.gradients = (torch.zeros(-(-end // ROW) * ROW) for _ in range(2))
        self.library: ctypes.CDLL | None = None  # training.c, if it computes the norm and FlatAdamW's update
        self._sums = torch.empty(len(self.weights) // ROW, dtype=torch.float64)
        self._pairs: list[tuple[nn.Parameter, Tensor]] = []
        for name, parameter in ordered:
            mine = self.view(self.weights, name)
            mine.copy_(parameter.detach())
            parameter.data = mine
            self._pairs.append((parameter, self.view(self.gradients, name)))

    @property
    def names(self) -> list[str]:
        """The parameters' names, in their order here."""
        return list(self._places)

    @staticmethod
    def fits(model: GPT) -> bool:
        """Whether all parameters are in float32 on a CPU and trained."""
        return all(p.device.type == "cpu" and p.dtype == torch.float32 and p.requires_grad for _, p in model.weights())

    def view(self, buffer: Tensor, name: str) -> Tensor:
        """The part of `buffer` (P,) that belongs to the parameter `name`, in its shape."""
        start, shape = self._places[name]
        return buffer[start : start + shape.numel()].view(shape)

    def span(self, names: list[str]) -> slice:
        """The place of neighbouring parameters, in order, in a buffer (P,)."""
        start, shape = self._places[names[-1]]
        return slice(self._places[names[0]][0], start + -(-shape.numel() // ALIGNED) * ALIGNED)

    def attach(self) -> None:
        """Makes `parameter.grad` views of `gradients`, which are complete."""
        for parameter, mine in self._pairs:
            parameter.grad = mine

    def collect(self) -> None:
        """Copies the gradients that autograd left in `parameter.grad`, 0 where it left none, then attaches them."""
        for parameter, mine in self._pairs:
            if parameter.grad is None:
                mine.zero_()
            elif parameter.grad is not mine:
                mine.copy_(parameter.grad)
            parameter.grad = mine

    def clip(self, most: float) -> float:
        """Scales the gradients so that their norm is at most `most`, as `clip_grad_norm_`. Returns the norm before."""
        if self.library is None:
            norm = float(torch.linalg.vector_norm(torch.linalg.vector_norm(self.gradients.view(-1, ROW), dim=1)))
        else:
            count = len(self.gradients)
            at, room = self.gradients.data_ptr(), self._sums.data_ptr()
            norm = math.sqrt(self.library.sum_squares(at, room, count, torch.get_num_threads()))
        if norm + 1e-6 > most:
            self.gradients.mul_(most / (norm + 1e-6))
        return norm


class FlatAdamW(torch_private.AdamW):
    """AdamW on `flat`: two parameters, with weight decay and without. Its state by the model's names is `named_state`.
    With `cautious`, the decay is that of cautious.py."""

    def __init__(
        self,
        flat: FlatParameters,
        weight_decay: float,
        lr: float,
        betas: tuple[float, float],
        *,
        cautious: bool = False,
    ) -> None:
        self.flat, self.cautious, self.weight_decay = flat, cautious, weight_decay
        parts = slice(flat.decayed), slice(flat.decayed, None)
        parameters = [nn.Parameter(flat.weights[part]) for part in parts]
        groups = [
            {"params": [parameter], "weight_decay": decay}
            for parameter, decay in zip(parameters, (0.0 if cautious else weight_decay, 0.0), strict=True)
        ]
        super().__init__(groups, lr=lr, betas=betas, fused=True)
        self.moments = {name: torch.zeros_like(flat.weights) for name in ("exp_avg", "exp_avg_sq")}
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = flat.gradients[part]
            self.state[parameter] = {"step": torch.tensor(0.0), **{n: m[part] for n, m in self.moments.items()}}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates the weights."""
        library, flat = self.flat.library, self.flat
        if library is None:
            if self.cautious:
                self._decay()
            super().step()
            return
        for own in self.state.values():
            own["step"] += 1
        decayed = self.param_groups[0]
        (beta1, beta2), rate, step = decayed["betas"], float(decayed["lr"]), int(own["step"])
        library.adamw(
            flat.weights.data_ptr(), flat.gradients.data_ptr(), *(m.data_ptr() for m in self.moments.values()),
            len(flat.weights), flat.decayed, 1.0, rate, self.weight_decay, beta1, beta2, decayed["eps"],
            rate / (1 - beta1**step), math.sqrt(1 - beta2**step), int(self.cautious), torch.get_num_threads(),
        )  # fmt: skip

    def _decay(self) -> None:
        """Decays the weights cautiously; see cautious.py."""
        flat, group = self.flat, self.param_groups[0]
        part = slice(flat.decayed)
        mean = self.moments["exp_avg"][part].lerp(flat.gradients[part], 1 - group["betas"][0])
        cautious_decay.decay(flat.weights[part], mean, group["lr"] * self.weight_decay)

    def named_state(self) -> Iterator[tuple[str, Tensor]]:
        """The state as `torch.optim.AdamW` has it for each parameter: `NAME.step`, `NAME.exp_avg`, `NAME.exp_avg_sq`."""
        step = next(iter(self.state.values()))["step"]
        for name in self.flat.names:
            yield f"{name}.step", step.clone()
            for key, moment in self.moments.items():
                yield f"{name}.{key}", self.flat.view(moment, name)

    def load_named_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes the state that `named_state`, or an AdamW of the single parameters, gave."""
        for name in self.flat.names:
            for key, moment in self.moments.items():
                self.flat.view(moment, name).copy_(state[f"{name}.{key}"])
        for own in self.state.values():
            own["step"].copy_(state[f"{self.flat.names[0]}.step"])
