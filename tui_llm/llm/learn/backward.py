"""One backward pass, without a step: the gradient of a loss for every parameter and for the embedding of every token.

The model's own modules run, with the hooks on them; its parameters do not change, and get no `grad`. `Differentiable` is
what is needed of a model; ours is `DifferentiableGPT`. Letters as in `model.py`; n is the number of tokens that the loss is the mean of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tui_llm.llm.model import device
from tui_llm.llm.model.model import GPT


@dataclass(frozen=True, slots=True)
class ModelGradients:
    """loss: mean cross-entropy in nats, and `losses` (n,) of each token. parameters: the gradient for each parameter, by
    its name in the model; tied weights stand once. embeddings, embedded: the gradient for the token embedding of each
    input token, and that embedding, (T, C)."""

    loss: float
    losses: Tensor
    parameters: dict[str, Tensor]
    embeddings: Tensor
    embedded: Tensor


class Differentiable(Protocol):
    """A model that a loss can be differentiated through."""

    module: nn.Module  # whose parameters the gradients are for
    embedding: nn.Module  # its output for `ids` are the token embeddings, (1, T, C)
    parameters: int  # their number

    def logits(self, parameters: dict[str, Tensor], ids: Sequence[int], last: int) -> Tensor:
        """The logits of the last positions, (last, V or more), with these parameters."""
        ...


class DifferentiableGPT:
    """Our own GPT."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.module: nn.Module = model
        self.embedding: nn.Module = model.tokens
        self.parameters = model.config.parameters()

    def logits(self, parameters: dict[str, Tensor], ids: Sequence[int], last: int) -> Tensor:
        given = (torch.tensor([list(ids)], device=self.model.device),)
        made: Tensor = torch.func.functional_call(self.model, parameters, given, {"last": last})
        return made[0]


def gradients(model: Differentiable, ids: Sequence[int], wanted: Sequence[int], size: int) -> ModelGradients:
    """The gradients of the mean cross-entropy of `wanted` (n,), the targets of the last n positions of `ids` (T,). `size`
    is V: further ids only pad the embedding. Raises ValueError if `ids` are too many for the context."""
    parameters = {name: one.detach().requires_grad_() for name, one in model.module.named_parameters()}
    embedded: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: Tensor) -> None:
        embedded.append(output)

    # First, before a hook that replaces what it gives: a token whose embedding is replaced has no gradient.
    handle = model.embedding.register_forward_hook(keep, prepend=True)
    try:
        with torch.enable_grad(), device.threads(3 * model.parameters * len(ids)):
            logits = model.logits(parameters, ids, len(wanted))
            losses = F.cross_entropy(
                logits[:, :size].float(), torch.tensor(list(wanted), device=logits.device), reduction="none"
            )
            loss = losses.mean()
            # A part that is switched off has no gradient.
            found = torch.autograd.grad(loss, [*parameters.values(), *embedded], allow_unused=True)
    finally:
        handle.remove()
    made = [
        torch.zeros_like(one) if gradient is None else gradient.float()
        for one, gradient in zip([*parameters.values(), *embedded], found, strict=True)
    ]
    return ModelGradients(
        float(loss.detach()),
        losses.detach().cpu(),
        dict(zip(parameters, made[:-1], strict=True)),
        made[-1][0].cpu(),
        embedded[0].detach()[0].float().cpu(),
    )
