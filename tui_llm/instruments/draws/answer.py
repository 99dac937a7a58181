"""Inverse-CDF sampling of the next token: one draw under several settings, or many under one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.prediction import Candidate
from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.answers import answers
from tui_llm.instruments.draws.question import (
    LEAST_EXPECTED,
    MOST_DRAWS,
    Bin,
    Draw,
    DrawQuestion,
    Histogram,
    HistogramQuestion,
    Landing,
    TokenInterval,
)
from tui_llm.llm.predict.distribution import Processed
from tui_llm.llm.predict.generate import uniform
from tui_llm.llm.predict.softmax import Array
from tui_llm.session.open_model import OpenModel

_CHUNK = 4096  # draws between two checks of `overtaken`


@answers(DrawQuestion)
def draw(open_model: OpenModel, question: DrawQuestion, overtaken: Callable[[], bool]) -> Draw:
    """Raises `UserError` if there is nothing to predict from, or if u is out of range."""
    u = uniform(question.seed, question.index) if question.u is None else question.u
    if not 0 <= u < 1:
        raise UserError(f"u is {u}; give a number from 0 to below 1")
    landings = tuple(_landing(open_model, question, sampler, u, overtaken) for sampler in question.samplers)
    return Draw(open_model.weights(), u, open_model.tokenizer.size, landings)


def _processed(
    open_model: OpenModel, request: Request, sampler: SamplerSettings, overtaken: Callable[[], bool]
) -> tuple[Processed, Array]:
    """The distribution to sample from, and its cumulative sum over the kept tokens (float64), as `Processed.place` uses
    it."""
    request = dataclasses.replace(request, sampler=sampler)
    processed = open_model.prediction(request, overtaken)
    return processed, processed.probability[: processed.kept_count].cumsum()


def _landing(
    open_model: OpenModel, question: DrawQuestion, sampler: SamplerSettings, u: float, overtaken: Callable[[], bool]
) -> Landing:
    processed, sums = _processed(open_model, question.request, sampler, overtaken)
    shown = processed.rows(min(question.top, processed.kept_count), open_model.bytes_of)

    def segment(candidate: Candidate, place: int) -> TokenInterval:
        # Rounding can leave the sum slightly off 1, where the last interval ends.
        stop = 1.0 if place == processed.kept_count - 1 else float(sums[place])
        return TokenInterval(candidate, place, float(sums[place - 1]) if place else 0.0, stop)

    segments = tuple(segment(candidate, place) for place, candidate in enumerate(shown))
    place = processed.place(u)
    hit = segments[place] if place < len(segments) else segment(processed.row(place, open_model.bytes_of), place)
    return Landing(sampler, hit, segments, processed.kept_count)


@answers(HistogramQuestion)
def histogram(open_model: OpenModel, question: HistogramQuestion, overtaken: Callable[[], bool]) -> Histogram:
    """Raises `UserError` if there is nothing to predict from, or if the count is out of range."""
    total = question.count
    if not 1 <= total <= MOST_DRAWS:
        raise UserError(f"{total} draws; give a number from 1 to {MOST_DRAWS}")
    sampler = question.request.sampler
    processed, sums = _processed(open_model, question.request, sampler, overtaken)
    kept = processed.kept_count
    counts = np.zeros(kept, dtype=np.int64)
    for start in range(0, total, _CHUNK):
        if overtaken():
            raise Overtaken
        numbers = [uniform(question.seed, index) for index in range(start, min(start + _CHUNK, total))]
        places = np.minimum(np.searchsorted(sums, numbers, side="right"), kept - 1)
        counts += np.bincount(places, minlength=kept)
    p = processed.probability[:kept]
    own = min(question.top, kept)
    shown = processed.rows(own, open_model.bytes_of)
    rows = tuple((candidate, _bin(int(counts[place]), total, float(p[place]))) for place, candidate in enumerate(shown))
    rest = _bin(int(counts[own:].sum()), total, float(p[own:].sum())) if kept > own else None
    chi_squared, freedom, chance = _fit(counts.astype(np.float64), p * total)
    return Histogram(
        open_model.weights(), sampler, question.seed, total, kept, rows, rest, kept - own, chi_squared, freedom, chance
    )  # fmt: skip


def _bin(count: int, total: int, p: float) -> Bin:
    expected, deviation = total * p, math.sqrt(total * p * max(0.0, 1 - p))
    return Bin(count, expected, deviation, (count - expected) / deviation if deviation > 0 else 0.0)


def _fit(counts: Array, expected: Array) -> tuple[float | None, int, float | None]:
    """Pearson's χ², its degrees of freedom k, and its p-value, the probability of a value at least as large: Q(k ÷ 2,
    χ² ÷ 2), the regularized upper incomplete gamma function."""
    enough = expected >= LEAST_EXPECTED
    rare = float(expected[~enough].sum())
    seen, due = counts[enough], expected[enough]
    if rare >= LEAST_EXPECTED or (rare > 0 and len(due) == 0):
        seen = np.append(seen, counts[~enough].sum())
        due = np.append(due, rare)
    elif rare > 0:  # too few for their own bin: merge them into the last one
        seen, due = seen.copy(), due.copy()
        seen[-1] += counts[~enough].sum()
        due[-1] += rare
    freedom = len(due) - 1
    if freedom < 1:
        return None, 0, None
    chi_squared = float(((seen - due) ** 2 / due).sum())
    return chi_squared, freedom, _upper_gamma(freedom / 2, chi_squared / 2)


def _upper_gamma(a: float, x: float) -> float:
    """Q(a, x), the regularized upper incomplete gamma function: 1 minus the series of P below x = a + 1, the continued
    fraction of Q above (Abramowitz & Stegun 1964, 6.5.29 and 6.5.31)."""
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        count = a
        while term > total * 1e-17:
            count += 1
            term *= x / count
            total += term
        return max(0.0, 1 - scale * total)
    b = x + 1 - a
    c, d = math.inf, 1 / b
    value, step, n = d, 0.0, 0
    while abs(step - 1) > 1e-15 and n < 100_000:  # modified Lentz's method; all its quotients are positive here
        n += 1
        numerator = -n * (n - a)
        b += 2
        d = 1 / (numerator * d + b)
        c = b + numerator / c
        step = c * d
        value *= step
    return min(1.0, scale * value)
