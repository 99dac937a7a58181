"""Repetition penalty and the stages between logit and probability, against transformers and torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tui_llm.common.errors import UserError
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.predict.distribution import Sorted, change, penalise, process
from tui_llm.llm.predict.generate import generate

LOGIT = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1.0, -1.0, -math.inf, 1e30, -1e30, 88.0, 1e-30]), st.floats(-50, 50, width=32)
)
LOGITS = st.lists(LOGIT, min_size=1, max_size=30).filter(lambda zs: max(zs) > -math.inf)
BYTES = b"%d".__mod__  # each token is its own id, in decimal
PENALTY = st.sampled_from([0.5, 1.0, 1.1, 1.3, 2.0, 10.0])


@given(LOGITS, st.data(), PENALTY)
def test_the_penalty_is_that_of_transformers(values: list[float], data: st.DataObject, penalty: float) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    seen = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=8))
    logits = torch.tensor(values)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), logits[None].clone())[0]
    assert np.array_equal(penalise(logits, [*seen, 10**6], penalty), theirs)
    assert torch.equal(logits, torch.tensor(values)), "the logits themselves stay"


@given(
    LOGITS, st.data(), PENALTY, st.sampled_from([0.3, 1.0, 1.7]), st.integers(0, 8), st.sampled_from([1.0, 0.9, 0.4])
)
def test_all_of_it_in_transformers_order(
    values: list[float], data: st.DataObject, penalty: float, temperature: float, top_k: int, top_p: float
) -> None:
    seen = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=8))
    settings = SamplerSettings(temperature, top_k, top_p, 0.0, penalty)
    logits = torch.tensor(values)
    done = process(logits, settings, seen)
    scores = torch.from_numpy(penalise(logits, seen, penalty))
    if not math.isfinite(float(scores.max())):
        return
    expected = ((scores.double() - scores.double().max()) / temperature).softmax(-1)
    by_id = torch.empty(len(values), dtype=torch.float64)
    by_id[done.order] = torch.from_numpy(done.tempered).double()
    torch.testing.assert_close(by_id, expected, atol=1e-6, rtol=1e-4)
    assert float(done.probability.sum()) == pytest.approx(1)
    assert not top_k or done.kept_count <= top_k


@given(LOGITS, st.data(), PENALTY, st.sampled_from([0.0, 0.2, 1.0, 3.0]))
def test_each_stage_follows_from_the_one_before(
    values: list[float], data: st.DataObject, penalty: float, temperature: float
) -> None:
    seen = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=5))
    settings = SamplerSettings(temperature, top_p=0.8, repetition_penalty=penalty)
    logits = torch.tensor(values)
    done = process(logits, settings, seen)
    rows = done.rows(len(values), BYTES)
    scores = torch.from_numpy(penalise(logits, seen, penalty))
    assert [row.score for row in rows] == scores[done.order].tolist()
    assert [row.logit for row in rows] == logits[done.order].tolist()
    assert [row.rank for row in rows] == [1 + int((logits > row.logit).sum()) for row in rows]
    torch.testing.assert_close(
        torch.tensor([row.raw_probability for row in rows]), logits.softmax(-1)[done.order], atol=1e-6, rtol=1e-4
    )
    for row in rows:
        if temperature:
            assert row.scaled == pytest.approx(row.score / temperature, rel=1e-6)
            if math.isfinite(row.scaled) and abs(row.scaled) < 1e6:
                assert row.numerator == pytest.approx(math.exp(row.scaled - done.peak), rel=1e-4, abs=1e-12)
        else:
            assert row.scaled == row.score
        assert row.numerator / done.total == pytest.approx(row.tempered, rel=1e-3, abs=1e-6)
        assert row.probability == pytest.approx(row.tempered / done.kept_mass if row.kept else 0, rel=1e-6)
    if temperature and abs(done.peak) < 1e6:
        whole = (scores.double() / temperature).logsumexp(-1)
        assert done.peak + math.log(done.total) == pytest.approx(float(whole), rel=1e-6, abs=1e-6)
    places = torch.randperm(len(values)).numpy()
    assert done.at(places, BYTES) == tuple(rows[at] for at in places.tolist()), "any rows, in any order"


def test_what_is_seen_is_drawn_less() -> None:
    logits = torch.tensor([2.0, 1.9, -1.0])
    plain, made = process(logits, SamplerSettings(0.0)), process(logits, SamplerSettings(0.0, 0, 1, 0, 1.5), [0, 0, 2])
    assert plain.row(0, BYTES).id == 0 and made.row(0, BYTES).id == 1
    assert made.row(2, BYTES).score == -1.5 and made.row(1, BYTES).rank == 1, "the rank is the model's own"
    steps = generate(lambda _: logits, [2], SamplerSettings(0, 0, 1, 0, 9), seed=1, count=2, bytes_of=BYTES)
    assert [step.id for step in steps] == [0, 1], "generation penalises what it drew"


def test_logits_by_hand() -> None:
    logits = torch.tensor([1.0, 2.0])
    assert change(logits, ((0, 5.0), (1, -math.inf))).tolist() == [5.0, -math.inf] and logits.tolist() == [1.0, 2.0]
    assert Sorted.of(change(logits, ((1, -math.inf),))).entropy == 0
    with pytest.raises(UserError, match="ids go from 0 to 1"):
        change(logits, ((2, 0.0),))


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_no_such_penalty(wrong: float) -> None:
    with pytest.raises(UserError, match="give a number above 0"):
        SamplerSettings(repetition_penalty=wrong)
