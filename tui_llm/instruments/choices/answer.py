"""Read a model's choices from its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tui_llm.facts.model import ModelChoices
from tui_llm.instruments.answers import answers
from tui_llm.instruments.choices.question import ChoicesQuestion
from tui_llm.llm.hub.choices import of_files
from tui_llm.session.open_model import OpenModel


@answers(ChoicesQuestion)
def answer(open_model: OpenModel, question: ChoicesQuestion, overtaken: Callable[[], bool]) -> ModelChoices:
    """Raises `UserError` if the model's vocabulary can't be read without opening it."""
    return of_files(Path(question.path), question.name)
