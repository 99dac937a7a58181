"""A model's choices, without opening it."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import ModelChoices
from tui_llm.facts.request import Question


@dataclass(frozen=True, slots=True)
class ChoicesQuestion(Question[ModelChoices]):
    """The model called `name`, in the folder or file `path`."""

    path: str = ""
    name: str = ""
