"""The loss that a model of some size reaches on some text: the law that `--minutes` picks a model by. Does not import torch.

L(N, D) = E + A · N^−α + B · D^−β (Hoffmann et al. 2022, "Training compute-optimal large language models", arXiv 2203.15556,
section 3.3), here in bits per byte, so that vocabularies can be compared: N are the parameters without the position embedding, D
the bytes of text that were trained on. `scripts/loss_law.py` fitted it; docs/training.md has the figures.

Text that is read more than once counts less (Muennighoff et al. 2023, "Scaling data-constrained language models", arXiv
2305.16264, section 3): D' = U + U · R · (1 − e^(−(D/U − 1) ÷ R)) for U bytes of text, with their R = 15.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

REPEATS = 15.4  # R


@dataclass(frozen=True, slots=True)
class LossLaw:
    """The law. B = b · (bytes per token)^−γ: tokens of more bytes learn from less text. `spread` is the relative error to expect for
    another text: a little more than twice the standard deviation of the two that it was fitted to."""

    e: float
    a: float
    alpha: float
    b: float
    beta: float
    gamma: float
    spread: float

    def bits_per_byte(self, parameters: int, read: float, text: float, bytes_per_token: float) -> float:
        """The held-out loss in bits per byte after `read` bytes of a text of `text` bytes."""
        b = self.b * bytes_per_token**-self.gamma
        return self.e + self.a * parameters**-self.alpha + b * effective(read, text) ** -self.beta


def effective(read: float, text: float) -> float:
    """How many bytes of new text `read` bytes are worth, from a text of `text` bytes that is read again and again."""
    if read <= text:
        return read
    return text + text * REPEATS * (1 - math.exp(-(read / text - 1) / REPEATS))


LAW = LossLaw(e=1.024, a=18.84, alpha=0.34, b=38.2, beta=0.25, gamma=0.334, spread=0.16)
"""For English and text like it; see docs/training.md."""
