"""How a loss looks, the same for a token and for the legend: a colour and, since colour never speaks alone, a mark."""

from __future__ import annotations

import math
from dataclasses import dataclass

LEVELS = 6


@dataclass(frozen=True, slots=True)
class Shade:
    """`level` from 0 (a sure hit) to `LEVELS` − 1; `mark` is one cell, higher where the loss is; `words` say what it means."""

    level: int
    mark: str
    words: str

    @property
    def style(self) -> str:
        """The component of `Lines` that carries its colours."""
        return f"token-loss-{self.level}"


UNKNOWN = Shade(LEVELS - 1, "?", "no number")
# Each begins where the target is one among so many equally likely tokens: ln(10/9), ln 2, ln 10, ln 100, ln 1,000 nats.
_SCALE = (
    (math.log(10 / 9), Shade(0, "·", "p > 90 %")),
    (math.log(2), Shade(1, "▁", "> 50 %")),
    (math.log(10), Shade(2, "▃", "> 10 %")),
    (math.log(100), Shade(3, "▅", "> 1 %")),
    (math.log(1000), Shade(4, "▇", "> 0.1 %")),
    (math.inf, Shade(5, "█", "less")),
)


def shade(loss: float) -> Shade:
    """Of a loss in nats."""
    return next((found for above, found in _SCALE if loss < above), UNKNOWN if math.isnan(loss) else _SCALE[-1][1])


def legend() -> tuple[Shade, ...]:
    """Every shade, from the lowest loss up: what `shade` gives of a loss just below each border."""
    return tuple(shade(0.999 * above if math.isfinite(above) else above) for above, _ in _SCALE)
