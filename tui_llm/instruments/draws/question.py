"""Inverse-CDF sampling: which token a uniform number selects, and the histogram of many draws."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.prediction import Candidate
from tui_llm.facts.request import Question
from tui_llm.facts.sampler import SamplerSettings

SEGMENTS = 60  # tokens listed in each landing, by default
BINS = 200  # tokens with a bin of their own in a histogram, by default
MOST_DRAWS = 1_000_000
LEAST_EXPECTED = 5.0  # the χ² approximation needs an expected count of about 5 per bin


@dataclass(frozen=True, slots=True)
class DrawQuestion(Question["Draw"]):
    """Which token `u` in [0, 1) selects under each of `samplers`. If `u` is None, it is the number that generation with
    `seed` uses for token number `index`. `top`: the number of most probable tokens listed in each landing."""

    samplers: tuple[SamplerSettings, ...] = ()
    u: float | None = None
    seed: int = 1
    index: int = 0
    top: int = SEGMENTS


@dataclass(frozen=True, slots=True)
class TokenInterval:
    """A token's interval [start, stop) of the cumulative distribution, tokens in descending order of probability. Every
    u in the interval selects the token. `place` is its index in that order."""

    candidate: Candidate
    place: int
    start: float
    stop: float


@dataclass(frozen=True, slots=True)
class Landing:
    """Which token u selected under one sampler.

    segments: the most probable of the kept tokens; `hit`, the selected one, may come after them.
    kept: number of tokens that survived the cuts.

    At temperature 0 the most probable token has all of [0, 1).
    """

    sampler: SamplerSettings
    hit: TokenInterval
    segments: tuple[TokenInterval, ...]
    kept: int


@dataclass(frozen=True, slots=True)
class Draw:
    """`landings` are in the order of the question's samplers."""

    weights: Weights
    u: float
    vocabulary: int
    landings: tuple[Landing, ...]


@dataclass(frozen=True, slots=True)
class HistogramQuestion(Question["Histogram"]):
    """Sample the request's next token `count` times with its sampler. Draw number i uses the u that generation with
    `seed` uses for token number i. The `top` most probable tokens have a bin of their own; all others share one."""

    count: int = 1000
    seed: int = 1
    top: int = BINS


@dataclass(frozen=True, slots=True)
class Bin:
    """How often a token was drawn.

    expected: n p; deviation: √(n p (1 − p)), the standard deviation of the count.
    score: (count − expected) ÷ deviation; 0 if the deviation is 0.
    """

    count: int
    expected: float
    deviation: float
    score: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """The counts of many draws.

    rows: the kept tokens in descending order of probability; rest: those after them, `rest_kept` of them.
    chi_squared: Σ (count − expected)² ÷ expected (Pearson 1900) over the tokens whose expected count is at least 5, the
        others pooled into one bin; `freedom` its degrees of freedom.
    chance: the p-value, the probability that correct sampling gives a χ² at least as large. Both are None if there is
        only one bin.
    """

    weights: Weights
    sampler: SamplerSettings
    seed: int
    count: int
    kept: int
    rows: tuple[tuple[Candidate, Bin], ...]
    rest: Bin | None
    rest_kept: int
    chi_squared: float | None
    freedom: int
    chance: float | None
