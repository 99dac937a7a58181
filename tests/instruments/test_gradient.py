"""The gradient of the loss with respect to the logits, p − y, against torch's autograd."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.gradient.question import GradientQuestion


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


def by_autograd(engine: PipelineEngine, ids: list[int], target: int) -> torch.Tensor:
    with torch.no_grad():
        row = engine.gpt(torch.tensor([ids]), last=1)[0, 0, : engine.tokenizer.size].float()
    row.requires_grad_(True)
    F.cross_entropy(row[None], torch.tensor([target])).backward()
    assert row.grad is not None
    return row.grad


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_rows_are_autograds_for_every_token_of_the_target(engine: PipelineEngine, index: int) -> None:
    request = Request(prompt="The cat sat on the", target=Target(text=" zebra"))
    ids, wanted = engine.target(request)
    assert len(wanted) > 2
    found = engine.answer(GradientQuestion(request, index, 6))
    expected = by_autograd(engine, ids + wanted[:index], wanted[index])
    assert found.token.id == wanted[index] and found.tokens == len(wanted)
    assert [row.token.id for row in found.rows if row.target] == [wanted[index]]
    assert len(found.rows) == 7 and found.rest_count == engine.tokenizer.size - 7
    for row in found.rows:
        assert row.gradient == pytest.approx(float(expected[row.token.id]), abs=1e-5)
        assert row.gradient == pytest.approx(row.probability - row.target, abs=1e-6)
    others = expected.abs().clone()
    others[wanted[index]] = 0
    shown = [row for row in found.rows if not row.target]
    assert [row.gradient for row in shown] == pytest.approx(others.topk(6).values.tolist(), abs=1e-5)
    assert found.rest + sum(row.gradient for row in found.rows) == pytest.approx(0, abs=1e-5)


def test_it_follows_the_cursor_and_leaves_the_window_as_it_was(engine: PipelineEngine) -> None:
    request = Request(prompt="The cat sat on the mat", position=3, target=Target(own=True))
    engine.read(request)
    before = engine.forwards
    found = engine.answer(GradientQuestion(request))
    ids = engine.ids(request)
    assert found.token.id == ids[3] and engine.forwards == before
    expected = by_autograd(engine, ids[:3], ids[3])
    assert found.rows[0].gradient == pytest.approx(float(expected[found.rows[0].token.id]), abs=1e-5)


def test_what_has_no_gradient(engine: PipelineEngine) -> None:
    for request, why in (
        (Request(prompt="The cat"), "the target is empty"),
        (Request(prompt="", target=Target(text=" mat")), "the first token has no prediction"),
        (Request(prompt="The cat", target=Target(own=True)), "the text ends here"),
        (Request(prompt="The cat", position=0, target=Target(own=True)), "the first token has no prediction"),
        # a start token would not help before the window
        (Request(prompt=" a" * 300, position=0, target=Target(own=True)), "the model's context is the last 256 tokens"),
    ):
        with pytest.raises(UserError, match=why):
            engine.answer(GradientQuestion(request))
    with pytest.raises(UserError, match="there is no token number 2"):
        engine.answer(GradientQuestion(Request(prompt="The", target=Target(id=3)), 1))


def test_more_rows_than_the_vocabulary_has(engine: PipelineEngine) -> None:
    found = engine.answer(GradientQuestion(Request(prompt="The", target=Target(id=3)), 0, 10**6))
    assert len(found.rows) == engine.tokenizer.size and found.rest_count == 0 and found.rest == 0


def test_a_changed_logit_changes_the_first_tokens_gradient_as_its_loss(engine: PipelineEngine) -> None:
    plain = Request(prompt="The cat sat on the", target=Target(text=" zebra"))
    _, wanted = engine.target(plain)
    row = engine.answer(GradientQuestion(plain)).rows[0]
    request = dataclasses.replace(plain, overrides=((wanted[0], 30.0),))
    reading = engine.read(request)
    assert reading.loss is not None
    for index in (0, 1):
        (target,) = (one for one in engine.answer(GradientQuestion(request, index)).rows if one.target)
        assert target.gradient == pytest.approx(reading.loss.tokens[index].loss.probability - 1, abs=1e-5)
    (target,) = (one for one in engine.answer(GradientQuestion(request)).rows if one.target)
    assert target.gradient > -0.01 and row.gradient < -0.5


def test_tokens_too_unlikely_for_a_float_are_in_the_order_of_their_logits(engine: PipelineEngine) -> None:
    request = Request(prompt="The cat sat on the", target=Target(id=5), overrides=((5, 2000.0),))
    order = engine.read(Request(prompt=request.prompt, top=10)).distribution
    assert order is not None
    found = engine.answer(GradientQuestion(request, 0, 6))
    assert {row.probability for row in found.rows if not row.target} == {0.0}
    assert [row.token.id for row in found.rows] == [5, *[row.id for row in order.candidates if row.id != 5][:6]]
