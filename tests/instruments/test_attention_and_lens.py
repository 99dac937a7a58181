"""Attention and logit lens through the engine: on the shipped model, against plain formulas."""

from __future__ import annotations

import math

import pytest
import torch

from tests.near_ties import are_likeliest, possible_ranks
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.attention.answer import attention_rows
from tui_llm.instruments.attention.question import AttentionMap, AttentionQuestion
from tui_llm.instruments.learn.question import LearnQuestion
from tui_llm.instruments.lens.answer import likeliest
from tui_llm.instruments.lens.question import Lens, LensQuestion
from tui_llm.instruments.neighbours.question import NeighboursQuestion
from tui_llm.instruments.trace import KEY
from tui_llm.instruments.tree.question import BranchQuestion
from tui_llm.llm.model import inside

TEXT = "The cat sat on the"


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


# ── attention ──


def test_heads_and_their_means(engine: PipelineEngine) -> None:
    found: AttentionMap = engine.answer(AttentionQuestion(Request(prompt=TEXT), 3))
    ids = engine.ids(Request(prompt=TEXT))
    weights = inside.attention(inside.trace(engine.gpt, ids), 3)
    assert found.place.number == 3 and found.place.first == 0 and found.place.count == len(ids) == 5
    assert [token.id for token in found.place.tokens] == ids and found.place.token.id == ids[3]
    for layer, heads in enumerate(found.heads):
        for head, row in enumerate(heads):
            assert row.weights == pytest.approx(weights[layer, head].tolist(), abs=1e-7)
            assert found.row(layer, head) is row
        assert found.layers[layer].weights == pytest.approx(weights[layer].mean(0).tolist(), abs=1e-7)
        assert found.row(layer) is found.layers[layer]
    assert found.mean.weights == pytest.approx(weights.mean((0, 1)).tolist(), abs=1e-7)
    assert found.row() is found.mean


def test_entropy_spread_and_the_first_of_equals() -> None:
    even, sure, tied = attention_rows(torch.tensor([[0.25] * 4, [0.0, 0.0, 1.0, 0.0], [0.0, 0.5, 0.0, 0.5]]))
    assert (
        even.entropy == pytest.approx(math.log(4)) and even.effective_tokens == pytest.approx(4) and even.strongest == 0
    )
    assert sure.entropy == 0 and sure.effective_tokens == 1 and sure.strongest == 2
    assert tied.effective_tokens == pytest.approx(2) and tied.strongest == 1


def test_the_trace_is_cached_for_the_same_text_only(engine: PipelineEngine) -> None:
    engine.answer(AttentionQuestion(Request(prompt=TEXT)))
    kept = engine.screen_cache[KEY]
    engine.answer(LensQuestion(Request(prompt=TEXT), 1))
    assert engine.screen_cache[KEY] is kept
    engine.answer(AttentionQuestion(Request(prompt=TEXT, continuation=(5,))))
    assert engine.screen_cache[KEY] is not kept and engine.screen_cache[KEY].ids == (*kept.ids, 5)


def test_new_weights_clear_the_cached_trace() -> None:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    engine.answer(AttentionQuestion(Request(prompt=TEXT)))
    engine.open("nano")
    assert not engine.screen_cache


def test_closed_screens_leave_nothing_in_memory() -> None:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    first = engine.answer(AttentionQuestion(Request(prompt=TEXT)))
    engine.answer(LearnQuestion(Request(prompt=TEXT, target=Target(text=" mat")), at=1))
    engine.answer(BranchQuestion(Request(prompt=TEXT), ((),), 2))
    assert len(engine.screen_cache) == 3 and not set(engine.screen_cache) & set(engine.remembered)
    engine.release()
    assert not engine.screen_cache
    assert engine.answer(AttentionQuestion(Request(prompt=TEXT))) == first


def test_a_text_longer_than_the_context(engine: PipelineEngine) -> None:
    context = engine.gpt.config.context
    request = Request(prompt=" cat" * (context + 10))
    found: AttentionMap = engine.answer(AttentionQuestion(request))
    assert (found.place.first, found.place.count, found.place.number) == (10, context + 10, context + 9)
    assert len(found.place.tokens) == len(found.mean.weights) == context
    assert len(engine.answer(AttentionQuestion(request, 10)).mean.weights) == 1
    with pytest.raises(UserError, match="choose a token number from 10 up"):
        engine.answer(AttentionQuestion(request, 9))


def test_missing_tokens_and_superseded_questions(engine: PipelineEngine) -> None:
    with pytest.raises(UserError, match="there is no token to look from"):
        engine.answer(AttentionQuestion(Request()))
    for number in (5, -1):
        with pytest.raises(UserError, match="go from 0 to 4"):
            engine.answer(LensQuestion(Request(prompt=TEXT), number))
    with pytest.raises(Overtaken):
        engine.answer(AttentionQuestion(Request(prompt="something new")), lambda: True)


def test_damaged_weights_are_one_line() -> None:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    engine.gpt.blocks[1].mlp.down.bias[0] = math.nan
    for question in (AttentionQuestion(Request(prompt=TEXT)), LensQuestion(Request(prompt=TEXT))):
        with pytest.raises(UserError, match="NaN: the weights are damaged"):
            engine.answer(question)


# ── logit lens ──


def test_the_lens_ends_in_the_reading(engine: PipelineEngine) -> None:
    reading = engine.read(Request(prompt=TEXT, target=Target(text=" mat")))
    found: Lens = engine.answer(LensQuestion(Request(prompt=TEXT, target=Target(text=" mat")), None, 4))
    assert reading.distribution is not None and reading.loss is not None
    last, (row,) = found.rows[-1], reading.loss.tokens
    with torch.inference_mode():
        logits = engine.gpt(torch.tensor([reading.prompt_ids]))[0, -1, : engine.tokenizer.size]
    assert are_likeliest([guess.token.id for guess in last.guesses], logits)
    assert are_likeliest([row.id for row in reading.distribution.candidates[:4]], logits)
    assert [guess.probability for guess in last.guesses] == pytest.approx(
        [row.raw_probability for row in reading.distribution.candidates[:4]], rel=1e-4
    )
    assert {last.rank, row.loss.rank} <= set(possible_ranks(logits, row.token.id))
    assert last.probability == pytest.approx(row.loss.probability, rel=1e-4)
    assert last.entropy == pytest.approx(reading.distribution.entropy, abs=1e-4)
    assert last.divergence == 0
    assert [row.layer for row in found.rows] == [None, 0, 1, 2, 3]


def test_every_row_against_torchs_own(engine: PipelineEngine) -> None:
    found: Lens = engine.answer(LensQuestion(Request(prompt=TEXT), 2, 3))
    trace = inside.trace(engine.gpt, engine.ids(Request(prompt=TEXT)))
    logits = inside.lens(engine.gpt, trace, 2)[:, : engine.tokenizer.size].double()
    log_p = logits.log_softmax(-1)
    for layer, row in enumerate(found.rows):
        categorical = torch.distributions.Categorical(logits=logits[layer])
        whole = torch.distributions.Categorical(logits=logits[-1])
        assert row.entropy == pytest.approx(float(categorical.entropy()), abs=1e-4)
        assert row.divergence == pytest.approx(float(torch.distributions.kl_divergence(whole, categorical)), abs=1e-4)
        assert row.probability == pytest.approx(float(log_p[layer, found.target.id].exp()), rel=1e-4)
        assert row.rank == 1 + int((logits[layer] > logits[layer, found.target.id]).sum())
        assert [g.token.id for g in row.guesses] == logits[layer].topk(3).indices.tolist()


def test_which_token_the_lens_follows(engine: PipelineEngine) -> None:
    ids = engine.ids(Request(prompt=TEXT))
    inner: Lens = engine.answer(LensQuestion(Request(prompt=TEXT), 1))
    assert inner.chosen == "next" and inner.target.id == ids[2]
    end: Lens = engine.answer(LensQuestion(Request(prompt=TEXT)))
    assert end.chosen == "likeliest" and end.target == end.rows[-1].guesses[0].token and end.rows[-1].rank == 1
    asked: Lens = engine.answer(LensQuestion(Request(prompt=TEXT, target=Target(text=" mat")), 1))
    assert asked.chosen == "asked" and asked.target.bytes == b" mat"
    with pytest.raises(UserError, match="the target is empty"):
        engine.answer(LensQuestion(Request(prompt=TEXT, target=Target(text=""))))


def test_the_likeliest_with_ties_and_minus_infinity() -> None:
    assert likeliest(torch.tensor([1.0, 3.0, 3.0, -math.inf, 2.0, 3.0]), 4) == [1, 2, 5, 4]
    assert likeliest(torch.zeros(5), 3) == [0, 1, 2]
    assert likeliest(torch.tensor([-math.inf, 0.0]), 9) == [1, 0]


# ── neighbours by name ──


def test_a_token_by_its_text_or_id(engine: PipelineEngine) -> None:
    id = engine.tokenizer.encode(" king")[0]
    by_id = engine.answer(NeighboursQuestion(Request(), id, 3))
    assert engine.answer(NeighboursQuestion(Request(), count=3, text=" king")) == by_id
    assert engine.answer(NeighboursQuestion(Request(), count=3, text=f"#{id}")) == by_id
    with pytest.raises(UserError, match="there is no token 99999"):
        engine.answer(NeighboursQuestion(Request(), text="#99999"))
    with pytest.raises(UserError, match="empty text"):
        engine.answer(NeighboursQuestion(Request(), text=""))
    with pytest.raises(UserError, match="is 4 tokens: 'king' 'dom' ' of' ' the'"):
        engine.answer(NeighboursQuestion(Request(), text="kingdom of the"))
