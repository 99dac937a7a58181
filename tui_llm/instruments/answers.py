"""The table of functions that answer questions.

Each `NAME/answer.py` enters its functions with `@answers(SomeQuestion)`, so an instrument is added without a change to
this file. The table is filled by the first question: the screen imports questions only, and opens without torch.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from tui_llm import instruments
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


@functools.cache
def functions() -> Mapping[type[Question[Any]], Function[Any, Any]]:
    """The whole table. Imports every instrument's answer.py, and with them torch."""
    for found in pkgutil.iter_modules(instruments.__path__, f"{instruments.__name__}."):
        if found.ispkg:
            importlib.import_module(f"{found.name}.answer")
    return _functions


def answer(open_model: OpenModel, question: Question[Answer], overtaken: Overtaken) -> Answer:
    """Answer `question` about the open model. Raises `UserError`, and `Overtaken` as soon as `overtaken()` returns
    true."""
    made: Answer = functions()[type(question)](open_model, question, overtaken)
    return made
