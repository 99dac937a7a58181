"""A loss in nats converted to other units. No torch here."""

from __future__ import annotations

import math


def uniform_loss(vocabulary: int) -> float:
    """ln V, in nats: the loss of the uniform prediction over V ≥ 1 tokens."""
    return math.log(vocabulary)


def bits(loss: float) -> float:
    """Convert a loss from nats to bits."""
    return loss / math.log(2)


def perplexity(loss: float) -> float:
    """e^loss of a mean loss in nats: the number of equally likely tokens that would give this loss; inf if it overflows
    a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
