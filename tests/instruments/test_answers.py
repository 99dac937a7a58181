"""The table of functions that answer questions."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import sys
from typing import Any, get_args, get_type_hints

import pytest

from tui_llm import instruments
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Question, Request
from tui_llm.instruments import answers
from tui_llm.session.open_model import OpenModel


def questions() -> set[type[Question]]:
    """Every kind of question in the instruments' question.py."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(instruments.__path__, f"{instruments.__name__}.")
        if found.name.endswith(".question")
    ]
    return {
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Question) and kind is not Question
    }


def answer_of(kind: type[Question]) -> Any:
    """The type of answer that a question declares: `Lens` of `class LensQuestion(Question["Lens"])`."""
    (base,) = kind.__orig_bases__  # type: ignore[attr-defined]
    (declared,) = get_args(base)
    name = getattr(declared, "__forward_arg__", None)
    return declared if name is None else vars(sys.modules[kind.__module__])[name]


def test_every_question_has_the_function_of_its_instrument() -> None:
    kinds = questions()
    assert len(kinds) > 20
    for kind in kinds:
        function = answers.function_of(kind)
        # Some import the type of the model for the type checker only: they need no torch.
        hints = get_type_hints(inspect.unwrap(function), localns={"OpenModel": OpenModel})
        assert hints["question"] is kind and hints["return"] == answer_of(kind), kind
        assert function.__module__ == kind.__module__.removesuffix("question") + "answer"


def test_the_engine_answers_by_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True, slots=True)
    class Riddle(Question[str]):
        text: str = ""

    engine = PipelineEngine("cpu")
    with pytest.raises(KeyError):
        engine.answer(Riddle(Request()))

    def solve(open_model: object, question: Riddle, overtaken: object) -> str:
        if not question.text:
            raise UserError("there is nothing to solve")
        return question.text.upper()

    monkeypatch.setitem(answers._functions, Riddle, solve)
    assert engine.answer(Riddle(Request(), "old")) == "OLD"
    with pytest.raises(UserError, match="nothing to solve"):
        engine.answer(Riddle(Request()))
