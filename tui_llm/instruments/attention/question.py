"""Attention: how much each head attends to each token, for one query token of the text."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.place import Place
from tui_llm.facts.request import Question


@dataclass(frozen=True, slots=True)
class AttentionQuestion(Question["AttentionMap"]):
    """The query is token number `number` of the text (from 0); None is the last."""

    number: int | None = None


@dataclass(frozen=True, slots=True)
class AttentionRow:
    """The attention weights of one head, or a mean over heads: `weights` in [0, 1], summing to 1, over the tokens that
    were fed, up to the query.

    strongest: the index of the largest weight, the first on a tie.
    entropy: −Σ w ln w in nats; effective_tokens: e^entropy, the number of tokens over which uniform attention would have this
        entropy.
    """

    weights: tuple[float, ...]
    strongest: int
    entropy: float
    effective_tokens: float


@dataclass(frozen=True, slots=True)
class AttentionMap:
    """`heads[layer][head]`, and the means of their weights: `layers[layer]` over a layer's heads, `mean` over all
    heads."""

    weights: Weights
    place: Place
    heads: tuple[tuple[AttentionRow, ...], ...]
    layers: tuple[AttentionRow, ...]
    mean: AttentionRow

    def row(self, layer: int | None = None, head: int | None = None) -> AttentionRow:
        """The weights of a layer and head, both numbered from 0. Without `head` the mean over the layer's heads, without
        `layer` the mean over all."""
        if layer is None:
            return self.mean
        return self.layers[layer] if head is None else self.heads[layer][head]
