"""A loss in nats, said otherwise. No torch here."""

from __future__ import annotations

import math


def uniform_loss(vocabulary: int) -> float:
    """ln V, in nats: the loss of a model that knows nothing of its V ≥ 1 tokens and finds all of them equally likely."""
    return math.log(vocabulary)


def bits(loss: float) -> float:
    """A loss in nats, in bits."""
    return loss / math.log(2)


def perplexity(loss: float) -> float:
    """e^loss of a mean loss in nats: of how many equally likely tokens the choice was, as it were; ∞ where that is
    beyond a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
