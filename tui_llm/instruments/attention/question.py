"""Attention: which tokens each head looked at, from one token of the text."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.place import Place
from tui_llm.facts.request import Question


@dataclass(frozen=True, slots=True)
class AttentionQuestion(Question):
    """From token number `number` of the text (from 0); None is the last."""

    number: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """How attention was spread: `weights` (0…1, their sum is 1) over the tokens that were fed, up to the one that looks.

    strongest: the number among them with the largest weight, the first on a tie. entropy: −Σ w ln w in nats; spread: e to
    its power, as many tokens as if it had looked at that many evenly.
    """

    weights: tuple[float, ...]
    strongest: int
    entropy: float
    spread: float


@dataclass(frozen=True, slots=True)
class Attention:
    """`heads[layer][head]`, and means of their weights: `layers[layer]` over a layer's heads, `mean` over all heads."""

    weights: Weights
    place: Place
    heads: tuple[tuple[Look, ...], ...]
    layers: tuple[Look, ...]
    mean: Look

    def look(self, layer: int, head: int) -> Look:
        """By layer and head, each from 1; 0 is the mean over the layer's heads, or over all where `layer` is 0."""
        if not layer:
            return self.mean
        return self.heads[layer - 1][head - 1] if head else self.layers[layer - 1]
