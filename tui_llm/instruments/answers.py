"""The table of functions that answer questions.

Each `NAME/answer.py` enters its functions with `@answers(SomeQuestion)`, so an instrument is added without a change to
this file. A question's first asking imports its answer: the screen imports questions only, and opens without torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from tui_llm.facts.request import Answer, Question

if TYPE_CHECKING:
    from tui_llm.session.open_model import OpenModel

Overtaken = Callable[[], bool]  # whether the answer is no longer wanted
Q = TypeVar("Q", bound=Question[Any])
Function = Callable[["OpenModel", Q, Overtaken], Answer]

_functions: dict[type[Question[Any]], Function[Any, Any]] = {}


def answers(kind: type[Q]) -> Callable[[Function[Q, Answer]], Function[Q, Answer]]:
    """A decorator: the function answers questions of type `kind`."""

    def enter(function: Function[Q, Answer]) -> Function[Q, Answer]:
        _functions[kind] = function
        return function

    return enter


def function_of(kind: type[Question[Any]]) -> Function[Any, Any]:
    """The function that answers questions of type `kind`. Imports the answer.py beside it, which may import torch."""
    folder, _, file = kind.__module__.rpartition(".")
    if kind not in _functions and file == "question":
        importlib.import_module(f"{folder}.answer")
    return _functions[kind]


def answer(open_model: OpenModel, question: Question[Answer], overtaken: Overtaken) -> Answer:
    """Answer `question` about the open model. Raises `UserError`, and `Overtaken` as soon as `overtaken()` returns
    true."""
    made: Answer = function_of(type(question))(open_model, question, overtaken)
    return made
