"""Softmax and the sampler's filters, against torch, transformers and closed forms."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from tui_llm.common.errors import UserError
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.predict import softmax
from tui_llm.llm.predict.distribution import Sorted, descending, draw, process, rank
from tui_llm.llm.predict.softmax import check, entropy

INF = math.inf


def probabilities(logits, temperature=1.0):
    return torch.from_numpy(softmax.probabilities(logits, temperature))


def log_softmax(logits, temperature=1.0):
    return torch.from_numpy(softmax.log_softmax(logits, temperature))


def str_bytes(id):
    """A vocabulary in which each token is its own id, in decimal."""
    return str(id).encode()


# Ordinary logits, ties, −inf, and the limits of float32.
value = st.floats(-30, 30, width=32) | st.sampled_from([0.0, -0.0, 1.0, 1.0, -INF, -3e38, 3e38, 88.0, -104.0])
any_logits = st.lists(value, min_size=1, max_size=40).filter(lambda xs: max(xs) > -INF).map(torch.tensor)
mild = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=40).map(torch.tensor)
distinct = st.lists(st.integers(-400, 400), min_size=1, max_size=40, unique=True).map(lambda xs: torch.tensor(xs) / 50)
settings_ = st.builds(
    SamplerSettings,
    temperature=st.sampled_from([0.0, 1e-300, 1e-10, 0.5, 1.0, 2.0, 1e10, 1e300]) | st.floats(0.1, 3),
    top_k=st.integers(0, 45),
    top_p=st.sampled_from([0.0, 1e-9, 0.5, 0.9, 0.999999999, 1.0]) | st.floats(0, 1),
    min_p=st.sampled_from([0.0, 0.05, 1.0]) | st.floats(0, 1),
)


@given(any_logits)
def test_descending_is_torchs_stable_sort(logits):
    values, order = descending(logits)
    expected = torch.sort(logits, descending=True, stable=True)
    assert order.tolist() == expected.indices.tolist() and np.array_equal(values, expected.values)


def test_descending_with_many_ties_and_every_size_of_float():
    logits = torch.cat([torch.randn(5000).mul(4).round(), torch.tensor([-INF, 1e-45, -1e-45, 3e38, -3e38, 0.0, -0.0])])
    assert descending(logits)[1].tolist() == torch.sort(logits, descending=True, stable=True).indices.tolist()


def by_id(processed, column):
    """Reorders a column of the table by token id."""
    out = np.empty_like(column)
    out[processed.order] = column
    return torch.from_numpy(out)


# ── softmax ──


@given(any_logits)
def test_probabilities_are_softmax(logits):
    exact = logits.double()
    torch.testing.assert_close(probabilities(logits), torch.softmax(exact, -1), rtol=1e-12, atol=0)
    torch.testing.assert_close(log_softmax(logits), torch.log_softmax(exact, -1), rtol=1e-12, atol=1e-15)


@given(mild, st.floats(0.1, 10))
def test_temperature_divides_the_logits(logits, temperature):
    expected = torch.softmax(TemperatureLogitsWarper(temperature)(None, logits.double()), -1)
    torch.testing.assert_close(probabilities(logits, temperature), expected, rtol=1e-11, atol=0)


@given(any_logits, st.sampled_from([5e-324, 1e-320, 1e-45, 1e-10, 1e-3, 1.0, 1e10, 1e308]))
def test_no_temperature_gives_anything_but_probabilities(logits, temperature):
    p = probabilities(logits, temperature)
    assert p.isfinite().all() and (p >= 0).all()
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    assert (p[logits == -INF] == 0).all()


def test_a_tiny_temperature_shares_between_ties_and_zero_does_not():
    logits = torch.tensor([1.0, 3.0, 2.0, 3.0])
    assert probabilities(logits, 1e-10).tolist() == pytest.approx([0, 0.5, 0, 0.5])
    assert probabilities(logits, 0).tolist() == [0, 1, 0, 0]
    assert log_softmax(logits, 0).tolist() == [-INF, 0, -INF, -INF]


def test_closed_forms():
    p = process(torch.tensor([3.2, 1.3, -2.1]), SamplerSettings()).probability.tolist()
    assert [f"{100 * x:.1f}" for x in p] == ["86.6", "13.0", "0.4"]
    # e^z / Σ e^z in Python floats
    e = [math.exp(z) for z in (3.2, 1.3, -2.1)]
    assert p == pytest.approx([x / sum(e) for x in e], rel=1e-6)  # the logits are float32


def test_a_sharp_temperature_cuts_nothing():
    # In float32, e^−120 and e^−500 are 0. In float64, only e^−800 is.
    done = process(torch.tensor([0.0, -12.0, -50.0, -80.0]), SamplerSettings(0.1))
    assert done.probability.tolist() == pytest.approx([1, math.exp(-120), math.exp(-500), 0], rel=1e-12, abs=0)
    assert done.kept_count == 3
    assert done.raw.tolist() == pytest.approx([1, math.exp(-12), math.exp(-50), math.exp(-80)], rel=1e-5, abs=0)


def test_the_probabilities_of_fifty_thousand_tokens_sum_to_one():
    logits = 4 * torch.randn(50257, generator=torch.Generator().manual_seed(5))
    for temperature in (0.1, 0.7, 1.0, 2.0):
        assert float(probabilities(logits, temperature).sum()) == pytest.approx(1, abs=1e-13)


@pytest.mark.parametrize(
    ("temperature", "percent"),
    [
        (1, "40.0 30.0 20.0 10.0"),
        (0.5, "53.3 30.0 13.3 3.3"),
        (2, "32.5 28.2 23.0 16.3"),
        (0, "100.0 0.0 0.0 0.0"),
    ],
)
def test_temperature_by_example(temperature, percent):
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    p = process(logits, SamplerSettings(temperature)).probability.tolist()
    assert " ".join(f"{100 * x:.1f}" for x in p) == percent


# ── rank, entropy, padding, inputs without a softmax ──


@given(any_logits)
def test_rank_counts_strictly_greater(logits):
    expected = [1 + sum(other > mine for other in logits.tolist()) for mine in logits.tolist()]
    assert rank(logits, range(len(logits))) == expected
    rows = process(logits, SamplerSettings()).rows(len(logits), str_bytes)
    assert [row.rank for row in sorted(rows, key=lambda row: row.id)] == expected


@given(any_logits)
def test_entropy(logits):
    shifted = (logits.double() - logits.double().max()).clamp_min(-1e300)  # torch does not accept −inf here
    expected = float(torch.distributions.Categorical(logits=shifted).entropy())
    assert entropy(logits) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert Sorted.of(logits).entropy == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_entropy_at_its_ends():
    assert entropy(torch.zeros(1000)) == pytest.approx(math.log(1000))
    assert entropy(torch.tensor([0.0, -INF, -INF])) == 0
    assert math.copysign(1, entropy(torch.tensor([0.0]))) == 1


@pytest.mark.parametrize(
    ("logits", "says"),
    [
        ([0.0, math.nan, 1.0], "NaN"),
        ([INF, math.nan], "NaN"),
        ([0.0, INF], "+inf"),
        ([-INF, -INF], "all −inf"),
        ([], "no logits"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        check,
        probabilities,
        log_softmax,
        entropy,
        Sorted.of,
        lambda logits: process(logits, SamplerSettings(0)),
    ],
)
def test_logits_without_a_softmax_are_refused_in_one_line(function, logits, says):
    with pytest.raises(UserError) as error:
        function(torch.tensor(logits))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_one_bad_row_of_many_is_refused():
    check(torch.zeros(2, 3))
    with pytest.raises(UserError, match="NaN"):
        check(torch.tensor([[0.0, 1.0], [math.nan, 0.0]]))


def test_numbers_beyond_float32_are_refused_not_turned_into_nan():
    with pytest.raises(UserError, match="inf"):
        process(torch.tensor([1e300, 0.0], dtype=torch.float64), SamplerSettings())


# ── the filters ──


@given(any_logits, settings_)
def test_invariants_of_processed_probabilities(logits, settings):
    done = process(logits, settings)
    assert float(done.probability.sum()) == pytest.approx(1, abs=1e-9)
    assert np.isfinite(done.probability).all()
    assert ((done.probability > 0) == done.kept).all()  # `kept` marks what can be sampled
    assert done.kept_count == int(done.kept.sum()) >= 1
    assert done.kept_mass == pytest.approx(float(done.tempered[done.kept].sum(dtype=np.float64)), abs=1e-9)
    # Most probable first, ties by lower id.
    assert done.order.tolist() == sorted(range(len(logits)), key=lambda id: (-logits[id].item(), id))
    torch.testing.assert_close(by_id(done, done.tempered), probabilities(logits, settings.temperature))
    torch.testing.assert_close(by_id(done, done.raw), probabilities(logits))
    # Renormalizing keeps proportions.
    np.testing.assert_allclose(done.probability[done.kept] * done.kept_mass, done.tempered[done.kept], rtol=1e-9)
    if settings.greedy:
        assert done.kept_count == 1


@given(any_logits, settings_)
def test_the_cuts_are_what_their_definitions_say(logits, settings):
    """Each rule in plain Python over the tempered probabilities of the full vocabulary, then all of them together."""
    done = process(logits, settings)
    tempered = done.tempered.tolist()
    before, keep = 0.0, []
    for place, p in enumerate(tempered):
        close = abs(before - settings.top_p) < 2e-6 and settings.top_p < 1
        assume(not close or place == 0)  # there, the result depends on rounding
        assume(settings.min_p == 0 or abs(p - settings.min_p * tempered[0]) > 2e-6 * tempered[0] or settings.min_p == 1)
        rules = (
            p > 0,
            settings.top_k == 0 or place < settings.top_k,
            settings.top_p == 1 or before < settings.top_p,
            p >= settings.min_p * tempered[0] * (1 - 1e-6),
        )
        keep.append(all(rules) or place == 0)
        before += p
    assert done.kept.tolist() == keep


def single_cut(warper, logits):
    return torch.softmax(warper(None, logits[None].double())[0], -1)


@given(distinct, st.integers(1, 45))
def test_top_k_as_in_transformers(logits, k):
    expected = single_cut(TopKLogitsWarper(k), logits)
    done = process(logits, SamplerSettings(top_k=k))
    torch.testing.assert_close(by_id(done, done.probability), expected, rtol=1e-4, atol=1e-6)


@given(distinct, st.floats(0.01, 0.99))
def test_top_p_as_in_transformers(logits, p):
    cumulative = torch.softmax(logits.double(), -1).sort(descending=True).values.cumsum(-1)
    assume(not ((cumulative - p).abs() < 1e-5).any())
    expected = single_cut(TopPLogitsWarper(p), logits)
    done = process(logits, SamplerSettings(top_p=p))
    torch.testing.assert_close(by_id(done, done.probability), expected, rtol=1e-4, atol=1e-6)


@given(distinct, st.floats(0.01, 0.99))
def test_min_p_as_in_transformers(logits, p):
    exact = torch.softmax(logits.double(), -1)
    assume(not ((exact - p * exact.max()).abs() < 1e-5).any())
    expected = single_cut(MinPLogitsWarper(p), logits)
    done = process(logits, SamplerSettings(min_p=p))
    torch.testing.assert_close(by_id(done, done.probability), expected, rtol=1e-4, atol=1e-6)


@given(mild, st.floats(0, 1))
def test_the_nucleus_reaches_p_and_is_the_smallest_that_does(logits, p):
    done = process(logits, SamplerSettings(top_p=p))
    if done.kept_count < len(logits):
        assert done.kept_mass >= p - 2e-6
    if done.kept_count > 1:
        assert done.kept_mass - float(done.tempered[done.kept_count - 1]) < p


def test_a_sum_equal_to_p_up_to_rounding_reaches_it():
    quarter, tenth = torch.zeros(4), torch.zeros(10)
    assert [process(quarter, SamplerSettings(top_p=p)).kept_count for p in (0, 0.25, 0.5, 0.51, 0.75, 1)] == [
        1,
        1,
        2,
        3,
        3,
        4,
    ]
    assert [process(tenth, SamplerSettings(top_p=k / 10)).kept_count for k in range(1, 11)] == list(range(1, 11))
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    assert [process(logits, SamplerSettings(top_p=p)).kept_count for p in (0.4, 0.7, 0.9)] == [1, 2, 3]
    assert [process(logits, SamplerSettings(min_p=p)).kept_count for p in (1, 0.75, 0.5, 0.25)] == [
        1,
        2,
        3,
        4,
    ]


def test_cuts_break_ties_by_lower_id():
    logits = torch.tensor([1.0, 5.0, 5.0, 5.0])
    assert process(logits, SamplerSettings(top_k=2)).rows(2, str_bytes)[1].id == 2
    assert process(logits, SamplerSettings(top_p=0.0)).kept_count == 1
    assert draw(process(logits, SamplerSettings(top_p=0.0)), 0.999) == 1
    assert process(logits, SamplerSettings(min_p=1.0)).kept_count == 3


def test_top_p_sums_the_full_vocabulary_whatever_top_k_cut():
    # The first token has 40 %, so top-p 0.5 needs the second too; among the two that top-k keeps, it would have 57 %.
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    assert process(logits, SamplerSettings(top_k=2, top_p=0.5)).kept_count == 2
    assert process(logits, SamplerSettings(top_k=2, top_p=0.5)).probability.tolist() == pytest.approx(
        [4 / 7, 3 / 7, 0, 0]
    )


def test_one_sort_serves_all_settings():
    logits = torch.randn(500, generator=torch.Generator().manual_seed(1))
    order = Sorted.of(logits)
    for settings in (SamplerSettings(), SamplerSettings(0.0), SamplerSettings(0.7, 20, 0.9, 0.1)):
        assert order.process(settings).rows(30, str_bytes) == process(logits, settings).rows(30, str_bytes)


# ── the table ──


@given(mild, settings_, st.sampled_from([0.5, 1.0, 1.5]), st.booleans(), st.integers(0, 50), st.data())
def test_the_likeliest_are_torchs_largest_logits_whatever_the_penalty(
    logits, settings, penalty, sequential, count, data
):
    settings = dataclasses.replace(settings, repetition_penalty=penalty, sequential_cuts=sequential)
    seen = data.draw(st.lists(st.integers(0, len(logits) - 1), max_size=5))
    rows = process(logits, settings, seen).likeliest(count, str_bytes)
    wanted = torch.sort(logits, descending=True, stable=True).indices[:count].tolist()
    assert [row.id for row in rows] == wanted and [row.bytes for row in rows] == [str_bytes(id) for id in wanted]
    assert [row.logit for row in rows] == logits[wanted].tolist()
    assert [row.raw_probability for row in rows] == pytest.approx(
        logits.double().softmax(-1)[wanted].tolist(), abs=1e-12
    )
    assert [row.rank for row in rows] == [1 + int((logits > logits[id]).sum()) for id in wanted]


@given(any_logits, settings_, st.integers(0, 50))
def test_rows_and_the_rest_add_up(logits, settings, top):
    done = process(logits, settings)
    rows, rest = done.rows(top, str_bytes), done.rest(top)
    assert len(rows) == min(top, len(logits))
    assert len(rows) + rest.count == len(logits)
    assert sum(row.kept for row in rows) + rest.kept == done.kept_count
    for name in ("raw_probability", "tempered", "probability"):
        assert sum(getattr(row, name) for row in rows) + getattr(rest, name) == pytest.approx(1, abs=1e-5)
    for row in rows:
        assert (row.bytes, row.text) == (str_bytes(row.id), str(row.id))
        assert row.logit == logits[row.id].item()
        assert row.kept == (row.probability > 0)
        assert type(row.id) is int and type(row.rank) is int and type(row.kept) is bool and type(row.logit) is float
    running = torch.tensor([row.tempered for row in rows], dtype=torch.float64).cumsum(-1).tolist()
    assert [row.cumulative for row in rows] == pytest.approx(running, abs=1e-12)


@given(mild)
def test_e_to_the_logit_over_its_sum_is_the_raw_probability(logits):
    rows = process(logits, SamplerSettings()).rows(len(logits), str_bytes)
    total = sum(row.exp_logit for row in rows)
    for row in rows:
        assert row.exp_logit == pytest.approx(math.exp(row.logit))
        assert row.raw_probability == pytest.approx(row.exp_logit / total, rel=1e-4)
    assert Sorted.of(logits).logsumexp == pytest.approx(math.log(total), abs=1e-4)


def test_a_logit_too_large_for_e_to_the_logit_is_no_error():
    row = process(torch.tensor([800.0, -800.0]), SamplerSettings()).row(0, str_bytes)
    assert (row.exp_logit, row.raw_probability) == (INF, 1.0)


# ── sampling ──


@given(any_logits, settings_, st.floats(0, 1, exclude_max=True))
def test_a_draw_is_the_first_whose_cumulative_probability_exceeds_u(logits, settings, u):
    done = process(logits, settings)
    rows = [row for row in done.rows(len(logits), str_bytes) if row.kept]
    total, expected = 0.0, rows[-1].id
    for row in rows:
        total += row.probability
        assume(abs(total - u) > 1e-12)
        if total > u:
            expected = row.id
            break
    assert draw(done, u) == expected


@given(any_logits, settings_)
def test_the_ends_of_u_never_draw_what_was_cut(logits, settings):
    done = process(logits, settings)
    drawable = {row.id for row in done.rows(len(logits), str_bytes) if row.probability > 0}
    assert draw(done, 0.0) == int(done.order[0])
    assert draw(done, math.nextafter(1, 0)) in drawable


@given(mild, settings_)
def test_draws_come_as_often_as_their_probabilities_say(logits, settings):
    done = process(logits, settings)
    n = 400
    counts = torch.zeros(len(logits))
    for i in range(n):
        counts[draw(done, (i + 0.5) / n)] += 1
    # Each token has an interval of u of length p: of a grid of n points, p·n ± 1 fall into it.
    assert (counts - by_id(done, done.probability) * n).abs().max() <= 1.001


def test_a_draw_at_a_boundary_belongs_to_the_next_token():
    done = process(torch.zeros(2), SamplerSettings())
    assert [draw(done, u) for u in (0.0, 0.4999999, 0.5, 0.9999999)] == [0, 0, 1, 1]


@pytest.mark.parametrize("u", [-0.1, 1.0, math.nan])
def test_u_out_of_range_is_refused(u):
    with pytest.raises(ValueError, match="u must be"):
        draw(process(torch.zeros(2), SamplerSettings()), u)


@pytest.fixture
def stable_sort(monkeypatch):
    """transformers sorts with `torch.sort`, whose order of equal values is undefined and differs between CPUs."""
    monkeypatch.setattr(torch, "sort", functools.partial(torch.sort, stable=True))


def _theirs(logits, settings):
    """The scores that transformers' warpers leave, in the order of its `generate`; use it with `stable_sort`."""
    scores = TemperatureLogitsWarper(float(settings.temperature))(None, logits[None])
    if settings.top_k:
        scores = TopKLogitsWarper(settings.top_k)(None, scores)
    if settings.top_p < 1:
        scores = TopPLogitsWarper(settings.top_p)(None, scores)
    if settings.min_p:
        scores = MinPLogitsWarper(settings.min_p)(None, scores)
    return scores[0]


def _ours(logits, settings):
    made = process(logits, settings)
    kept = torch.zeros(len(logits), dtype=torch.bool)
    kept[made.order[: made.kept_count]] = True
    p = torch.zeros(len(logits), dtype=torch.float64)
    p[made.order] = torch.from_numpy(made.probability)
    return made, kept, p


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.usefixtures("stable_sort")
def test_sequential_cuts_are_those_of_generate(seed):
    draw = torch.Generator().manual_seed(seed)
    size = int(torch.randint(2, 400, (), generator=draw))
    logits = torch.randn(size, generator=draw) * 3
    if seed % 2:
        logits = logits.round()  # many ties
    for temperature, k, p, min_p in [
        (1.0, 50, 0.9, 0.0), (0.7, 5, 0.5, 0.0), (1.3, 0, 0.95, 0.05), (1.0, 3, 1.0, 0.0), (0.8, 40, 0.3, 0.1), (2.0, 1000, 0.0, 0.0),
    ]:  # fmt: skip
        settings = SamplerSettings(temperature, k, p, min_p, sequential_cuts=True)
        scores = _theirs(logits, settings)
        made, kept, probability = _ours(logits, settings)
        assert torch.equal(kept, ~scores.isneginf())
        torch.testing.assert_close(probability, scores.double().softmax(-1), atol=1e-6, rtol=0)
        assert bool((made.sorted.scores[:-1] >= made.sorted.scores[1:]).all())
        assert sorted(made.order.tolist()) == list(range(size))
        assert np.array_equal(logits[made.order], made.sorted.logits)


def test_top_p_in_sequence_counts_what_top_k_left():
    logits = torch.tensor([0.5, 0.2, 0.2, 0.1]).log()
    assert process(logits, SamplerSettings(top_k=3, top_p=0.75)).kept_count == 3
    assert process(logits, SamplerSettings(top_k=3, top_p=0.75, sequential_cuts=True)).kept_count == 2
    assert process(logits, SamplerSettings(top_p=0.75, sequential_cuts=True)).kept_count == 3


@pytest.mark.usefixtures("stable_sort")
def test_ties_at_a_boundary_fall_as_in_generate():
    logits = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0])
    assert process(logits, SamplerSettings(top_k=2)).kept_count == 2
    assert process(logits, SamplerSettings(top_k=2, sequential_cuts=True)).kept_count == 4
    settings = SamplerSettings(top_p=0.6, sequential_cuts=True)
    made, kept, _ = _ours(logits, settings)
    assert kept.tolist() == (~_theirs(logits, settings).isneginf()).tolist()
    assert made.order[: made.kept_count].tolist() == kept.nonzero()[:, 0].tolist()
    assert made.kept[: made.kept_count].all() and made.place(0.999) < made.kept_count


def test_sequential_cuts_at_the_ends():
    logits = torch.tensor([1e30, -1e30, 0.0, -torch.inf])
    for temperature in (0.0, 1e-30, 1e-10, 1.0, 1e10):
        made = process(logits, SamplerSettings(temperature, 2, 0.5, 0.5, sequential_cuts=True))
        assert made.kept_count >= 1 and float(made.probability.sum()) == pytest.approx(1)
        assert made.probability[made.order == 3].tolist() == [0]


def test_generate_of_transformers_has_these_defaults():
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=80, n_positions=8))
    config, _ = model._prepare_generation_config(GenerationConfig(do_sample=True))
    theirs = SamplerSettings.of_generate()
    assert (config.temperature, config.top_k, config.top_p) == (theirs.temperature, theirs.top_k, theirs.top_p)
    assert not config.min_p and config.repetition_penalty == theirs.repetition_penalty
    warpers = model._get_logits_processor(
        GenerationConfig(do_sample=True, temperature=0.7, top_k=5, top_p=0.5, min_p=0.1), None, None, None, []
    )
    assert [type(one) for one in warpers] == [
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
        MinPLogitsWarper,
    ]
