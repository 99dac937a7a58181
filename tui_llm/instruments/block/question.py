"""The block as a flow: what one block computes for one token."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.place import Place
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token


@dataclass(frozen=True, slots=True)
class BlockQuestion(Question["BlockFlow"]):
    """Block `layer` (from 0) at token number `number` of the text (from 0; None is the last): for each head the `keys`
    tokens that it attends to most, the `neurons` neurons that add most, and for both the `tokens` tokens that they
    promote and suppress most."""

    layer: int = 0
    number: int | None = None
    keys: int = 5
    neurons: int = 10
    tokens: int = 4


@dataclass(frozen=True, slots=True)
class NormStatistics:
    """What a LayerNorm subtracts and divides by: the mean of its input, and σ = √(variance + ε). An RMSNorm subtracts
    nothing (mean is None) and divides by the root mean square √(Σ x² ÷ C + ε)."""

    mean: float | None
    sigma: float

    @property
    def name(self) -> str:
        return "RMSNorm" if self.mean is None else "LayerNorm"


@dataclass(frozen=True, slots=True)
class HeadKey:
    """A token that a head attends to. score: q · k ÷ √D. weight: the softmax of all scores. value_norm: ‖v‖."""

    number: int
    token: Token
    score: float
    weight: float
    value_norm: float


@dataclass(frozen=True, slots=True)
class PushedToken:
    """A token, and what a vector that is added to the residual stream adds to its logit, with the final LayerNorm's σ
    frozen at its value in this text."""

    token: Token
    logit: float


@dataclass(frozen=True, slots=True)
class Push:
    """The tokens whose logits a vector raises most, and those that it lowers most, each strongest first."""

    promoted: tuple[PushedToken, ...]
    suppressed: tuple[PushedToken, ...]


@dataclass(frozen=True, slots=True)
class BlockHead:
    """keys: highest weight first. norm: of what the head adds to the residual stream, biases excluded; 0 if its whole
    attention or layer is changed."""

    head: int
    query_norm: float
    keys: tuple[HeadKey, ...]
    norm: float
    push: Push


@dataclass(frozen=True, slots=True)
class Neuron:
    """hidden, activation: before and after GELU, or ReLU². norm: |activation| × ‖output weights‖, of what it adds to the residual
    stream."""

    number: int
    hidden: float
    activation: float
    norm: float
    push: Push


@dataclass(frozen=True, slots=True)
class StreamChange:
    """What changes of the whole layer, or of the stream after it, do to the stream at the token, after attention and MLP.

    names: of the changes. replaced: whether the layer's own value is replaced, so that attention and MLP add nothing. They are
        computed all the same: the second LayerNorm gets a stream with attention in it, of the norm `computed`.
    before: norm of the stream with what attention and MLP add. added: norm of what the changes add to that.
    """

    names: str
    replaced: bool
    computed: float
    before: float
    added: float


@dataclass(frozen=True, slots=True)
class BlockFlow:
    """Norms are Euclidean: √Σ x².

    norms: of the residual stream at the token: after the embedding, then after each block.
    attention, mlp: norms of what each adds to the stream. middle: norm of the stream between them. change: what is added after
        them; None without such a change.
    neurons: the largest `norm` first, none if what they add is replaced; `hidden` is their number in all, `active` that of
        those with hidden > 0.
    activation: what the MLP applies to its neurons.
    """

    weights: Weights
    place: Place
    layer: int
    norms: tuple[float, ...]
    norm1: NormStatistics
    heads: tuple[BlockHead, ...]
    attention: float
    middle: float
    norm2: NormStatistics
    neurons: tuple[Neuron, ...]
    hidden: int
    active: int
    mlp: float
    activation: str = "GELU"
    change: StreamChange | None = None
