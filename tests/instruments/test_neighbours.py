"""Embedding neighbours, against a plain cosine similarity."""

from __future__ import annotations

import pytest

from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.instruments.neighbours.question import NeighboursQuestion


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


def test_the_nearest_by_a_plain_cosine(engine: PipelineEngine) -> None:
    table = engine.gpt.tokens.weight[: engine.tokenizer.size].double().detach()
    id = engine.tokenizer.encode(" king")[0]
    found = engine.answer(NeighboursQuestion(Request(), id, 7))
    unit = table / table.norm(dim=1, keepdim=True)
    expected = (unit @ unit[id]).tolist()
    expected[id] = float("-inf")
    best = sorted(range(len(expected)), key=lambda other: -expected[other])[:7]
    assert [n.token.id for n in found.nearest] == best
    assert [n.cosine for n in found.nearest] == pytest.approx([expected[other] for other in best], abs=1e-5)
    assert found.norm == pytest.approx(float(table[id].norm()), rel=1e-5)
    assert found.width == table.shape[1] and found.token.bytes == b" king"


def test_more_than_there_are_and_none_such(engine: PipelineEngine) -> None:
    size = engine.tokenizer.size
    assert len(engine.answer(NeighboursQuestion(Request(), 0, size + 5)).nearest) == size - 1
    with pytest.raises(UserError, match="there is no token"):
        engine.answer(NeighboursQuestion(Request(), size, 5))
