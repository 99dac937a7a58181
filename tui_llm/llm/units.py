"""A loss in nats, said otherwise. No torch here."""

from __future__ import annotations

import math


def perplexity(loss: float) -> float:
    """e^loss of a mean loss in nats: of how many equally likely tokens the choice was, as it were; ∞ where that is
    beyond a float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
