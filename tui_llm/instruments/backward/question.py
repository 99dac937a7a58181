"""The backward pass of one loss: how strongly each matrix and each token of the text would change it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tui_llm.common.numbers import counted
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token

QUERY, KEY, VALUE, OUTPUT, UP, DOWN = "query", "key", "value", "attention output", "MLP up", "MLP down"
QKV, GATE, GATE_UP = "query, key, value", "MLP gate", "MLP gate and up"  # one matrix; gated MLPs
BIASES, NORMS, RMS_NORMS = "biases", "LayerNorms", "RMSNorms"
BLOCK_KINDS = (QUERY, KEY, VALUE, OUTPUT, UP, DOWN, BIASES, NORMS)  # of GPT-2
ALL_BLOCK_KINDS = (QUERY, KEY, VALUE, QKV, OUTPUT, GATE, GATE_UP, UP, DOWN, BIASES, NORMS, RMS_NORMS)
EMBEDDING, POSITION, FINAL_NORM, HEAD = "token embedding", "position embedding", "final LayerNorm", "output head"
FINAL_RMS_NORM = "final RMSNorm"
OTHER_KINDS = (EMBEDDING, POSITION, FINAL_NORM, FINAL_RMS_NORM, HEAD)


@dataclass(frozen=True, slots=True)
class BackwardQuestion(Question["Backward"]):
    """The gradient of the mean cross-entropy of the request's target at the request's position or, with `whole`, of every
    token of the text but the first, which is the loss of a training step on this one row."""

    whole: bool = False


@dataclass(frozen=True, slots=True)
class GradientNorm:
    """The norm √Σ g² of the gradient for a matrix, or for all biases or norms of a block; layer -1: of no block.
    `numbers` is how many g there are."""

    layer: int
    kind: str
    norm: float
    numbers: int


@dataclass(frozen=True, slots=True)
class Saliency:
    """A token that the loss depends on. norm: ‖∂L/∂e‖, e its token embedding at this place. product: e · ∂L/∂e, gradient
    × input: negative where a longer embedding would lower the loss, to first order."""

    number: int
    token: Token
    norm: float
    product: float


@dataclass(frozen=True, slots=True)
class Backward:
    """loss: in nats, the mean over `targets`. grad_norm: √ of the sum of the squared `norms`: over all parameters, as a
    training run reports it. tied: the output head is the token embedding, so that its gradient is in that one."""

    weights: Weights
    targets: tuple[Token, ...]
    losses: tuple[float, ...]
    whole: bool
    loss: float
    grad_norm: float
    tied: bool
    norms: tuple[GradientNorm, ...]
    tokens: tuple[Saliency, ...]

    @property
    def block_kinds(self) -> tuple[str, ...]:
        """The kinds that each block has, in the order of the forward pass."""
        return tuple(one.kind for one in self.norms if one.layer == 0)

    def cell(self, layer: int, kind: str) -> GradientNorm:
        return next(one for one in self.norms if (one.layer, one.kind) == (layer, kind))


def loss_of(found: Backward, label: Callable[[str], str]) -> str:
    """What the loss is of, for a title; `label` makes a token's text safe to print."""
    if found.whole:
        return f"the mean loss of {counted(len(found.targets), 'token')} of the text"
    words = " ".join(label(token.text) for token in found.targets[:4]) + (" …" if len(found.targets) > 4 else "")
    mean = "the mean loss" if len(found.targets) > 1 else "the loss"
    return f"{mean} on the target {words}"
