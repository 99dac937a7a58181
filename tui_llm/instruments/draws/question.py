"""Draws: where a uniform number lands on the cumulative distribution, and what many of them land on."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.prediction import Candidate
from tui_llm.facts.request import Question
from tui_llm.facts.sampler import SamplerSettings

SEGMENTS = 60  # tokens carried with each landing
BINS = 200  # tokens that a histogram counts one by one; the rest is one bin
MOST_DRAWS = 1_000_000
LEAST_EXPECTED = 5.0  # χ² is near its distribution only where each bin is expected to hold about so many


@dataclass(frozen=True, slots=True)
class DrawQuestion(Question):
    """What `u` in [0, 1) picks under each of `samplers`; where `u` is None, the u that generation with `seed` uses for
    token number `index`."""

    samplers: tuple[SamplerSettings, ...] = ()
    u: float | None = None
    seed: int = 1
    index: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """A token's interval [start, stop) on the cumulative distribution that is drawn from, likeliest token first: it is
    picked by every u in there. `place` is its place in that order, from 0."""

    candidate: Candidate
    place: int
    start: float
    stop: float


@dataclass(frozen=True, slots=True)
class Landing:
    """Where u landed. `segments` are the likeliest tokens that are kept; `hit` may be further down than they go. `kept` is
    how many tokens can be drawn. At temperature 0 the likeliest has all of [0, 1)."""

    sampler: SamplerSettings
    hit: Segment
    segments: tuple[Segment, ...]
    kept: int


@dataclass(frozen=True, slots=True)
class Draw:
    """`landings` are in the order of the question's samplers."""

    weights: Weights
    u: float
    vocabulary: int
    landings: tuple[Landing, ...]


@dataclass(frozen=True, slots=True)
class HistogramQuestion(Question):
    """Draw the request's next token `count` times with its sampler: the u of draw number i is the one that generation with
    `seed` uses for token number i."""

    count: int = 1000
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Bin:
    """How often a token was drawn. `expected` = n p; `deviation` = √(n p (1 − p)), the standard error of the count; `score`
    is how many of them the count is off (0 where the deviation is)."""

    count: int
    expected: float
    deviation: float
    score: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """`rows` are the kept tokens, likeliest first; `rest` those below them, `rest_kept` of them.

    chi_squared = Σ (count − expected)² ÷ expected (Pearson 1900) over the tokens whose expected count is at least 5, the
    others as one bin; `chance` is how often fair draws are that far off or further. None where there is one bin only.
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
