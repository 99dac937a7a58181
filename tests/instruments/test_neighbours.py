"""Embedding neighbours, against a plain cosine similarity; and that every question has its instrument."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from tui_llm import instruments
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Question, Request
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


def test_every_question_has_its_instrument() -> None:
    asked = 0
    for found in pkgutil.walk_packages(instruments.__path__, f"{instruments.__name__}."):
        if not found.name.endswith(".question"):
            continue
        module = importlib.import_module(found.name)
        kinds = [
            k for k in vars(module).values() if isinstance(k, type) and issubclass(k, Question) and k is not Question
        ]
        instrument = importlib.import_module(found.name.removesuffix("question") + "answer")
        assert callable(instrument.answer)
        asked += len(kinds)
    assert asked
