"""How a loss is shown, for tokens and for the legend: by a colour and, as colour must not carry meaning alone, a
mark."""

from __future__ import annotations

import math
from dataclasses import dataclass

LEVELS = 6


@dataclass(frozen=True, slots=True)
class LossShade:
    """`level` runs from 0 (a small loss) to `LEVELS` − 1; `mark` is one cell, taller for a larger loss; `words` give
    p."""

    level: int
    mark: str
    words: str

    @property
    def style(self) -> str:
        """The name of the `Lines` component class with its colours."""
        return f"token-loss-{self.level}"


UNKNOWN = LossShade(LEVELS - 1, "?", "no number")
# Upper bounds in nats: the losses at p = 90 %, 50 %, 10 %, 1 % and 0.1 %.
_SCALE = (
    (math.log(10 / 9), LossShade(0, "·", "p > 90 %")),
    (math.log(2), LossShade(1, "▁", "> 50 %")),
    (math.log(10), LossShade(2, "▃", "> 10 %")),
    (math.log(100), LossShade(3, "▅", "> 1 %")),
    (math.log(1000), LossShade(4, "▇", "> 0.1 %")),
    (math.inf, LossShade(5, "█", "less")),
)


def shade(loss: float) -> LossShade:
    """The shade of a loss in nats."""
    return next((found for above, found in _SCALE if loss < above), UNKNOWN if math.isnan(loss) else _SCALE[-1][1])


def legend() -> tuple[LossShade, ...]:
    """Every shade, from the lowest loss up: `shade` of a loss just below each bound."""
    return tuple(shade(0.999 * above if math.isfinite(above) else above) for above, _ in _SCALE)
