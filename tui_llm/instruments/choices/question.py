"""A model's choices, without opening it."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import ModelChoices
from tui_llm.facts.request import Question


@dataclass(frozen=True, slots=True)
class ChoicesQuestion(Question[ModelChoices | None]):
    """The model called `name`, in the folder or file `path`. The answer is None if its vocabulary can't be read."""

    path: str = ""
    name: str = ""
