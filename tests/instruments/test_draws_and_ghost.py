"""Draws and ghost text, against their definitions."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.draws.answer import _fit, _upper_gamma
from tui_llm.instruments.draws.question import Bin, DrawQuestion, HistogramQuestion
from tui_llm.instruments.ghost.question import GhostQuestion
from tui_llm.llm.predict.distribution import draw, process
from tui_llm.llm.predict.generate import uniform


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


SAMPLERS = st.builds(
    SamplerSettings,
    temperature=st.one_of(st.just(0.0), st.floats(0.05, 5)),
    top_k=st.sampled_from([0, 1, 7, 300]),
    top_p=st.one_of(st.just(1.0), st.floats(0, 1)),
    min_p=st.sampled_from([0.0, 0.01, 0.5]),
)
ASK = Request(prompt="The cat sat on the")


@settings(max_examples=40, deadline=None)
@given(u=st.one_of(st.just(0.0), st.just(1 - 2**-53), st.floats(0, 1, exclude_max=True)), sampler=SAMPLERS)
def test_u_selects_the_token_that_generation_would(engine: PipelineEngine, u: float, sampler: SamplerSettings) -> None:
    found = engine.answer(DrawQuestion(ASK, (sampler,), u))
    (landing,) = found.landings
    processed = process(engine.logits(ASK), sampler)
    assert found.u == u
    assert landing.hit.candidate.id == draw(processed, u)
    assert landing.hit.place == processed.place(u)
    assert landing.hit.start <= u < landing.hit.stop
    assert landing.kept == processed.kept_count and landing.hit.candidate.kept
    # The segments are adjacent from 0 on, each as wide as its probability.
    assert landing.segments[0].start == 0
    for before, after in zip(landing.segments, landing.segments[1:], strict=False):
        assert before.stop == after.start and before.candidate.probability >= after.candidate.probability
    for segment in (*landing.segments, landing.hit):
        assert segment.stop - segment.start == pytest.approx(segment.candidate.probability, abs=1e-9)
    if len(landing.segments) == landing.kept:
        assert landing.segments[-1].stop == 1


def test_without_u_the_draw_uses_generations_u(engine: PipelineEngine) -> None:
    sampler = SamplerSettings(0.8, top_p=0.9)
    request = Request(prompt="The cat sat on the", sampler=sampler)
    steps = list(engine.generate(request, seed=7, count=3))
    for index, step in enumerate(steps):
        before = Request(prompt=request.prompt, continuation=tuple(s.id for s in steps[:index]), sampler=sampler)
        found = engine.answer(DrawQuestion(before, (sampler, SamplerSettings(2.0)), None, 7, index))
        assert found.u == step.u
        assert found.landings[0].hit.candidate.id == step.id
        assert found.landings[0].kept == step.kept
        assert step.sampler == sampler and step.seed == 7


@pytest.mark.parametrize("sampler", [SamplerSettings(), SamplerSettings(0.7, top_p=0.9), SamplerSettings(0)])
def test_the_histogram_equals_a_recount(engine: PipelineEngine, sampler: SamplerSettings) -> None:
    request = Request(prompt="Once upon a", sampler=sampler)
    found = engine.answer(HistogramQuestion(request, 5000, 3))
    processed = process(engine.logits(request), sampler)
    p = processed.probability[: processed.kept_count].tolist()
    sums, ids = list(accumulate(p)), processed.order.tolist()
    counted = Counter(min(bisect.bisect_right(sums, uniform(3, i)), len(p) - 1) for i in range(5000))
    for place, (candidate, one) in enumerate(found.rows):
        assert candidate.id == ids[place] and one.count == counted[place]
        assert one.expected == pytest.approx(5000 * p[place])
        assert one.deviation == pytest.approx(math.sqrt(5000 * p[place] * (1 - p[place])), abs=1e-6)
    listed = sum(one.count for _, one in found.rows)
    assert listed + (found.rest.count if found.rest else 0) == 5000
    assert len(found.rows) + found.rest_kept == found.kept == processed.kept_count
    if sampler.greedy:
        assert found.rows[0][1] == Bin(5000, 5000.0, 0.0, 0.0) and found.chance is None


def test_chi_squared_of_known_tables() -> None:
    # χ² = (10 − 20)²/20 + (30 − 20)²/20 = 10 with one degree of freedom: p = erfc(√5).
    value, freedom, chance = _fit(np.array([10.0, 30.0]), np.array([20.0, 20.0]))
    assert (value, freedom) == (10.0, 1)
    assert chance == pytest.approx(math.erfc(math.sqrt(5)))
    # With two degrees of freedom, p = e^(−χ²/2); the two rare tokens share a bin.
    seen, due = np.array([12.0, 8.0, 3.0, 7.0]), np.array([10.0, 10.0, 4.0, 4.0])
    value, freedom, chance = _fit(seen, due)
    assert freedom == 2 and value == pytest.approx(0.4 + 0.4 + 4 / 8)
    assert chance == pytest.approx(math.exp(-value / 2))
    # If they are too rare even together, they join the last bin that is not.
    value, freedom, _ = _fit(np.array([12.0, 8.0, 2.0]), np.array([10.0, 10.0, 2.0]))
    assert freedom == 1 and value == pytest.approx(0.4 + 4 / 12)
    assert _fit(np.array([5.0]), np.array([5.0])) == (None, 0, None)


def test_the_upper_gamma_function_is_torchs() -> None:
    for freedom in (1, 2, 3, 10, 24, 99, 400, 5000):
        for factor in (0.0, 1e-6, 0.3, 0.8, 0.99, 1.0, 1.01, 1.2, 3.0):
            a = torch.tensor([freedom / 2, freedom * factor / 2], dtype=torch.float64)
            expected = float(torch.special.gammaincc(a[0], a[1]))
            # mpmath says that ours is right to 2e-12, and torch's only to 1.3e-9, at (49.5, 59.4).
            assert _upper_gamma(*a.tolist()) == pytest.approx(expected, rel=1e-8, abs=1e-12), (freedom, factor)


def test_invalid_draws_are_refused(engine: PipelineEngine) -> None:
    for u in (-0.1, 1.0, math.nan):
        with pytest.raises(UserError, match="give a number from 0"):
            engine.answer(DrawQuestion(ASK, (SamplerSettings(),), u))
    for count in (0, 10**9):
        with pytest.raises(UserError, match="give a number from 1"):
            engine.answer(HistogramQuestion(ASK, count))
    with pytest.raises(UserError, match="nothing to predict from"):
        engine.answer(HistogramQuestion(Request(), 10))
    with pytest.raises(Overtaken):
        engine.answer(HistogramQuestion(ASK, 10), lambda: True)


def test_ghost_text_is_the_greedy_continuation(engine: PipelineEngine) -> None:
    greedy = Request(prompt="Once upon a time", sampler=SamplerSettings(0))
    steps = list(engine.generate(greedy, seed=1, count=12))
    ghost = engine.answer(GhostQuestion(Request(prompt="Once upon a time")))
    assert ghost.text == "".join(step.text for step in steps)
    assert ghost.pieces == tuple(step.text for step in steps)
    assert engine.answer(GhostQuestion(Request())).pieces == ()


def test_ghost_text_stays_inside_the_context_and_gives_way(engine: PipelineEngine) -> None:
    context = engine.gpt.config.context
    request = Request(prompt=" cat" * (context - 2))
    engine.read(request)
    before = engine.forwards
    assert len(engine.answer(GhostQuestion(request)).pieces) <= 3
    assert engine.forwards - before <= 2
    engine.read(request)
    assert engine.forwards - before <= 2  # the tokens fed before are still in the cache
    with pytest.raises(Overtaken):
        engine.answer(GhostQuestion(request), lambda: True)


def test_a_stop_ends_the_reading_of_a_long_prompt(engine: PipelineEngine) -> None:
    """A stop takes effect not only between tokens: a long prompt is read in parts."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 1  # stop during the first token, not before it

    before = engine.forwards
    request = Request(prompt=" dog and the cat" * 60)
    assert list(engine.generate(request, seed=1, count=5, stop=stop)) == []
    assert engine.forwards == before
    assert len(list(engine.generate(request, seed=1, count=1))) == 1
