"""A model's choices, without opening it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tui_llm.facts.model import ModelChoices
from tui_llm.facts.request import Question


@dataclass(frozen=True, slots=True)
class ChoicesQuestion(Question[ModelChoices]):
    """The model called `name`, in the folder or file `path`."""

    uses_parts: ClassVar[bool] = False
    path: str = ""
    name: str = ""
