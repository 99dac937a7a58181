"""What tokens can be coloured by. `grade` gives a number its level; the legend is made from the same bounds.

Each level has a mark as well as a colour, and the number is shown beside it: colour carries no meaning alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from tui_llm.common import numbers
from tui_llm.facts.prediction import TokenScore
from tui_llm.tui.kit import format as fmt

PLAIN = "token"  # neighbouring tokens differ in colour; the colour has no meaning
KINDS = (PLAIN, "surprisal", "rank", "probability", "entropy")
MARKS = "▁▂▃▅▆█"
UNPREDICTED = "–"  # the token has no prediction
# Where the next level begins: the larger the number, the more surprising (probability: the smaller).
_BOUNDS: dict[str, tuple[float, ...]] = {
    "surprisal": (0.5, 1, 2, 4, 7),
    "rank": (2, 6, 21, 101, 1001),
    "probability": (0.5, 0.1, 0.01, 0.001, 0.0001),
    "entropy": (0.5, 1, 2, 3, 5),
}
_UNITS = {"surprisal": "nats: −ln p of the token", "rank": "among all tokens; 1 was the likeliest",
          "probability": "that the model gave to the token", "entropy": "nats: how uncertain the model was before it"}  # fmt: skip
_SHOWN: dict[str, Callable[[float], str]] = {
    "surprisal": lambda value: fmt.number(value, 1),
    "rank": lambda value: fmt.count(int(value)) if math.isfinite(value) else fmt.number(value),
    "probability": numbers.percent,
    "entropy": lambda value: fmt.number(value, 1),
}


def in_nats(kind: str) -> str:
    """The unit for a title, where it is nats."""
    return ", nats" if kind in ("surprisal", "entropy") else ""


class ScoreShade(NamedTuple):
    level: int  # 0 … 5
    mark: str
    text: str  # the number


def value(kind: str, score: TokenScore) -> float:
    return float(getattr(score, kind))


def shade(kind: str, score: TokenScore) -> ScoreShade:
    return grade(kind, value(kind, score))


def grade(kind: str, number: float) -> ScoreShade:
    """The level of one number: how many of the bounds it has passed. NaN has passed all."""
    bounds, falling = _BOUNDS[kind], kind == "probability"
    below = (number > bound if falling else number < bound for bound in bounds)
    level = next((at for at, is_below in enumerate(below) if is_below), len(bounds))
    return ScoreShade(level, MARKS[level], _SHOWN[kind](number))


def legend(kind: str) -> list[tuple[ScoreShade, str]]:
    """Each level with its range of numbers, as `grade` assigns it."""
    bounds, sign = _BOUNDS[kind], ">" if kind == "probability" else "<"
    number: Callable[[float], str] = numbers.percent if kind == "probability" else lambda bound: f"{bound:g}"
    shown = [number(bound) for bound in bounds]
    if kind == "rank":  # whole numbers: from, to
        starts = [1, *map(int, bounds)]
        names = [str(a) if b - a == 1 else f"{a}–{b - 1}" for a, b in pairwise(starts)]
        names.append(f"{fmt.count(starts[-1])} on")
    else:
        names = [f"{sign} {bound}" for bound in shown] + [f"{'≤' if sign == '>' else '≥'} {shown[-1]}"]
    return [(ScoreShade(level, MARKS[level], ""), name) for level, name in enumerate(names)]


def unit(kind: str) -> str:
    return _UNITS[kind]
