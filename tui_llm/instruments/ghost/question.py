"""Ghost text: what the model would most likely go on with."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question


@dataclass(frozen=True, slots=True)
class GhostQuestion(Question):
    """The greedy continuation of the request's text, up to `count` tokens. It goes only as far as the model's context: what
    has been fed stays there, and the next reading finds it."""

    count: int = 12


@dataclass(frozen=True, slots=True)
class Ghost:
    """`pieces` are tokens as text, neighbours joined where a character is split over them; it ends before
    `<|endoftext|>` and before bytes that are no text."""

    weights: Weights
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)
