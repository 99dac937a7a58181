"""Generation: reproducible samples, one at a time or streamed."""

import functools
import math
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tui_llm.common.errors import UserError
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.predict import generate as predict
from tui_llm.llm.predict.distribution import rank
from tui_llm.llm.predict.generate import uniform
from tui_llm.llm.predict.softmax import probabilities

VOCABULARY = 20
generate = functools.partial(predict.generate, bytes_of=b"%d".__mod__)  # each token is its own id, in decimal


def model(ids):
    """Returns logits that depend on all ids, as a model's do."""
    seed = 0
    for id in ids:
        seed = (seed * 31 + id + 1) % 2**31
    return 3 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed))


def ids_of(settings, seed=1, start=0, count=12, prompt=(1, 2)):
    return [step.id for step in generate(model, prompt, settings, seed=seed, start=start, count=count)]


@given(st.integers(), st.integers(0, 10**9))
def test_u_is_in_range_and_stateless(seed, index):
    assert 0 <= uniform(seed, index) < 1
    assert uniform(seed, index) == uniform(seed, index)


def test_u_never_changes_from_version_to_version():
    # Computed separately: the first 53 bits of sha256("tui-llm 1 0"), of sha256("tui-llm 1 1"), …
    assert [uniform(1, 0), uniform(1, 1), uniform(-7, 12345)] == [
        0.8361671139712422,
        0.917491196129297,
        0.07050120553200478,
    ]


def test_u_is_uniform_and_uncorrelated_between_indices_and_seeds():
    for numbers in (
        torch.tensor([uniform(0, i) for i in range(4000)], dtype=torch.float64),
        torch.tensor([uniform(s, 0) for s in range(4000)], dtype=torch.float64),
    ):
        # Kolmogorov–Smirnov: the largest distance from the diagonal exceeds 1.95/√n with probability 1/1,000.
        n = len(numbers)
        distance = (numbers.sort().values - (torch.arange(n) + 0.5) / n).abs().max()
        assert distance < 1.95 / math.sqrt(n)
        assert abs(torch.corrcoef(torch.stack([numbers[:-1], numbers[1:]]))[0, 1]) < 0.06
    assert len({uniform(s, i) for s in range(60) for i in range(60)}) == 3600


@given(
    st.integers(0, 5),
    st.integers(0, 8),
    st.sampled_from([SamplerSettings(), SamplerSettings(0.8, top_p=0.9)]),
)
def test_one_at_a_time_gives_what_all_at_once_gives(seed, cut, settings):
    whole = ids_of(settings, seed, count=8)
    first = ids_of(settings, seed, count=cut)
    rest = ids_of(settings, seed, start=cut, count=8 - cut, prompt=(1, 2, *first))
    assert first + rest == whole


def test_the_same_seed_gives_the_same_text_and_others_give_others():
    assert ids_of(SamplerSettings(), seed=3) == ids_of(SamplerSettings(), seed=3)
    assert len({tuple(ids_of(SamplerSettings(), seed=seed)) for seed in range(10)}) == 10


def test_greedy_takes_the_largest_logit_and_needs_no_u():
    expected, so_far = [], [1, 2]
    for _ in range(12):
        expected.append(int(torch.argmax(model(so_far))))
        so_far.append(expected[-1])
    steps = list(generate(model, [1, 2], SamplerSettings(0), seed=1, count=12))
    assert [step.id for step in steps] == expected
    assert all(step.u is None and step.probability == 1 and step.rank == 1 for step in steps)
    assert all(0 < step.raw_probability < 1 for step in steps)  # the model's unmodified probabilities are kept
    assert ids_of(SamplerSettings(0), seed=2) == expected
    assert ids_of(SamplerSettings(top_k=1)) == ids_of(SamplerSettings(top_p=0)) == expected


@given(st.integers(0, 50), st.sampled_from([SamplerSettings(), SamplerSettings(1.5, 10, 0.8, 0.02)]))
def test_a_step_contains_the_drawn_token_and_its_candidates(seed, settings):
    so_far = [4]
    for number, step in enumerate(
        generate(model, [4], settings, seed=seed, start=7, count=4, candidates=VOCABULARY), start=7
    ):
        logits = model(so_far)
        assert step.index == number
        assert step.u == uniform(seed, number)
        assert step.rank == rank(logits, [step.id])[0]
        assert step.raw_probability == pytest.approx(probabilities(logits)[step.id].item(), rel=1e-4)
        assert (step.seed, step.sampler, step.bytes) == (seed, settings, b"%d" % step.id)
        rows = step.candidates
        assert step.kept == sum(row.kept for row in rows)
        (mine,) = [row for row in rows if row.id == step.id]
        assert mine.kept and step.probability == mine.probability > 0
        below = sum(row.probability for row in rows[: rows.index(mine)])
        assert below - 1e-9 <= step.u < below + mine.probability + 1e-9
        so_far.append(step.id)


def test_the_same_u_can_be_tried_under_another_temperature():
    cold, hot = (next(generate(model, [1], SamplerSettings(t), seed=5, count=1, candidates=1)) for t in (0.3, 2.0))
    assert cold.u == hot.u
    assert cold.candidates[0].tempered > hot.candidates[0].tempered


def test_generation_stops_before_another_forward_pass():
    asked = []

    def counting(ids):
        asked.append(list(ids))
        return model(ids)

    steps = list(generate(counting, [1], SamplerSettings(), seed=1, count=100, stop=lambda: len(asked) == 3))
    assert len(steps) == len(asked) == 3
    assert asked[2] == [1, steps[0].id, steps[1].id]
    assert list(generate(counting, [1], SamplerSettings(), seed=1, count=0)) == []
    assert len(list(islice(generate(counting, [1], SamplerSettings(), seed=1, count=10**9), 2))) == 2
    assert len(asked) == 5  # nothing is computed before it is requested


def test_the_callers_ids_are_not_modified():
    prompt = [1, 2]

    def greedy_for_memory(ids):
        logits = model(ids)
        ids.clear()
        return logits

    assert len(list(generate(greedy_for_memory, prompt, SamplerSettings(), seed=1, count=3))) == 3
    assert prompt == [1, 2]
    made = [step.id for step in generate(greedy_for_memory, prompt, SamplerSettings(), seed=1, count=3)]
    assert made == ids_of(SamplerSettings(), count=3)


def test_a_model_that_gives_nan_ends_in_a_plain_error():
    with pytest.raises(UserError, match="NaN"):
        list(generate(lambda ids: torch.full((5,), math.nan), [1], SamplerSettings(), seed=1, count=1))
