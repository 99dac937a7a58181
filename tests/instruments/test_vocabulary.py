"""The whole vocabulary in pages, search, temperatures, the scratch table and what-if, against torch."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request, Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.scratch import question as typed
from tui_llm.instruments.scratch.answer import scratch
from tui_llm.instruments.scratch.question import ScratchQuestion
from tui_llm.instruments.temperatures.question import TemperaturesQuestion, parse
from tui_llm.instruments.vocabulary.question import ORDERS, FindQuestion, VocabularyQuestion

REQUEST = Request(prompt="The cat sat on the", sampler=SamplerSettings(0.7, top_p=0.9), top=50)


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


def test_pages_are_the_tables_rows(engine: PipelineEngine) -> None:
    reading = engine.read(REQUEST)
    assert reading.distribution is not None
    size, before = engine.tokenizer.size, engine.forwards
    page = engine.answer(VocabularyQuestion(REQUEST, start=10, stop=60))
    assert page.rows[:40] == reading.distribution.candidates[10:] and (page.start, page.count) == (10, size)
    whole = engine.answer(VocabularyQuestion(REQUEST, stop=10**9)).rows
    assert sorted(row.id for row in whole) == list(range(size))
    assert sum(row.probability for row in whole) == pytest.approx(1)
    for order, key in {
        "id": lambda row: row.id,
        "text": lambda row: (row.bytes, row.id),
        "length": lambda row: (-len(row.bytes), row.bytes, row.id),
    }.items():
        rows = engine.answer(VocabularyQuestion(REQUEST, order=order, stop=10**9)).rows
        assert list(rows) == sorted(whole, key=key)
    assert engine.answer(VocabularyQuestion(REQUEST, start=size, stop=size + 9)).rows == ()
    assert engine.forwards == before, "a page runs no forward pass"
    moved = dataclasses.replace(REQUEST, position=2)
    there = engine.read(moved).distribution
    assert there is not None and engine.answer(VocabularyQuestion(moved, stop=50)).rows == there.candidates
    with pytest.raises(UserError, match="choose one of probability, id, text, length"):
        engine.answer(VocabularyQuestion(REQUEST, order="colour"))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("find", [" mat", "=the", "#262", "26", "<0x", "ä"])
def test_finding_wraps_around(engine: PipelineEngine, order: str, find: str) -> None:
    rows = engine.answer(VocabularyQuestion(REQUEST, order=order, stop=10**9)).rows
    number = int(find.lstrip("#")) if find.lstrip("#").isdigit() else -1
    expected = [
        place
        for place, row in enumerate(rows)
        if row.id == number or (find[0] == "=" and row.text == find[1:]) or (find[0] not in "#=" and find in row.text)
    ]
    after, seen = -1, []
    for _ in expected:
        found = engine.answer(FindQuestion(REQUEST, order, find, after))
        assert found.matches == len(expected) and found.number == len(seen) + 1 and rows[found.place].id == found.id
        after = found.place
        seen.append(found.place)
    assert seen == expected
    again = engine.answer(FindQuestion(REQUEST, order, find, after))
    assert again.place == (expected[0] if expected else None), "behind the last it goes on from the top"
    assert [row.id for row in engine.answer(VocabularyQuestion(REQUEST, order, find=find, stop=10**9)).rows] == [
        rows[place].id for place in expected
    ]


def test_invalid_searches_are_refused(engine: PipelineEngine) -> None:
    for find, why in (("", "nothing to look for"), ("#x", "is not an id"), ("#²", "is not an id")):
        with pytest.raises(UserError, match=why):
            engine.answer(FindQuestion(REQUEST, find=find))
    assert engine.answer(FindQuestion(REQUEST, find="#99999999")).place is None
    with pytest.raises(UserError, match="nothing to predict from"):
        engine.answer(VocabularyQuestion(Request()))


def test_what_if_and_penalty_apply_to_table_loss_and_draw(engine: PipelineEngine) -> None:
    target = Target(id=300)
    request = dataclasses.replace(REQUEST, target=target, sampler=SamplerSettings())
    logits = torch.from_numpy(engine.logits(request).copy())
    plain = engine.read(request)
    logits[300], logits[262] = 9.0, -math.inf
    before = engine.forwards
    what_if = dataclasses.replace(request, overrides=((262, -math.inf), (300, 9.0)))
    reading = engine.read(what_if)
    assert engine.forwards == before
    assert reading.distribution is not None and reading.loss is not None and plain.loss is not None
    first = reading.distribution.candidates[0]
    assert first.id == 300 and first.raw_probability == pytest.approx(float(logits.softmax(-1)[300]))
    assert reading.loss.sum == pytest.approx(float(torch.nn.functional.cross_entropy(logits, torch.tensor(300))))
    assert reading.distribution.entropy == pytest.approx(
        float(torch.distributions.Categorical(logits=logits).entropy()), rel=1e-4
    )
    assert reading.distribution.choices == pytest.approx(math.exp(reading.distribution.entropy))
    step = next(iter(engine.generate(dataclasses.replace(what_if, sampler=SamplerSettings(0)), seed=1, count=1)))
    assert step.id == 300
    assert engine.read(request).loss == plain.loss, "undone, nothing of it is left"

    ids = engine.ids(request)
    penalised = engine.read(dataclasses.replace(request, sampler=SamplerSettings(0.8, repetition_penalty=1.3)))
    assert penalised.distribution is not None
    own = engine.logits(request)
    for row in penalised.distribution.candidates:
        assert row.logit == pytest.approx(float(own[row.id]))
        theta = 1.0 if row.id not in ids else 1 / 1.3 if row.logit > 0 else 1.3
        assert row.score == pytest.approx(row.logit * theta, rel=1e-5)


def test_temperatures_side_by_side(engine: PipelineEngine) -> None:
    found = engine.answer(TemperaturesQuestion(REQUEST, (0.5, 1.0, 2.0, 0.0), 20))
    logits = torch.from_numpy(engine.logits(REQUEST))
    assert found.others == engine.tokenizer.size - 20
    for column in found.columns[:3]:
        p = (logits / column.temperature).softmax(-1)
        assert column.probabilities == pytest.approx([float(p[token.id]) for token in found.tokens], rel=1e-4)
        assert sum(column.probabilities) + column.rest == pytest.approx(1)
        assert column.entropy == pytest.approx(float(torch.distributions.Categorical(p).entropy()), rel=1e-4)
        assert column.choices == pytest.approx(math.exp(column.entropy))
    assert found.columns[3].probabilities[:2] == (1.0, 0.0) and found.columns[3].entropy == 0


def test_the_tutorials_table() -> None:
    words = tuple(f"{name}={math.log(p)}" for name, p in zip("abcd", (0.4, 0.3, 0.2, 0.1), strict=True))
    made = scratch(ScratchQuestion(Request(), words, temperatures=(0.5, 1.0, 2.0)))
    assert made.temperatures is not None
    tables = [[round(100 * p, 1) for p in column.probabilities] for column in made.temperatures.columns]
    assert tables == [[53.3, 30.0, 13.3, 3.3], [40.0, 30.0, 20.0, 10.0], [32.5, 28.2, 23.0, 16.3]]


@given(st.text(max_size=40))
def test_typed_logits_are_read_or_refused_in_one_line(text: str) -> None:
    try:
        made = scratch(ScratchQuestion(Request(), typed.split(text)))
    except UserError as error:
        assert str(error)
    else:
        assert sum(row.probability for row in made.distribution.candidates) == pytest.approx(1)


@settings(max_examples=50)
@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=9))
def test_the_scratch_table_is_torchs_softmax(values: list[float]) -> None:
    words = tuple(f"[/]{at}={value!r}" for at, value in enumerate(values))
    distribution = scratch(ScratchQuestion(Request(), words)).distribution
    expected = torch.tensor(values).double().softmax(-1)
    for row in distribution.candidates:
        assert row.probability == pytest.approx(float(expected[row.id]), rel=1e-4, abs=1e-9)


def test_scratch_words_and_temperatures() -> None:
    assert typed.split('mat=3.2 " mat"=1 "a') == ("mat=3.2", " mat=1", '"a')
    seen = scratch(ScratchQuestion(Request(), ("a=3", "b=2"), SamplerSettings(0, 0, 1, 0, 2), seen=("a",)))
    assert seen.distribution.candidates[0].text == "b"
    with pytest.raises(UserError, match="none of the tokens"):
        scratch(ScratchQuestion(Request(), ("a=3",), seen=("x",)))
    assert parse("0.5, 1 2") == (0.5, 1.0, 2.0)
    for wrong in ("", "x", "-1", "nan", "inf", "1 " * 9):
        with pytest.raises(UserError, match="such as"):
            parse(wrong)
