"""Ghost text: the model's greedy continuation of the text."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question


@dataclass(frozen=True, slots=True)
class GhostQuestion(Question["Ghost"]):
    """The greedy continuation of the request's text, up to `count` tokens. It stops at the end of the context: its
    tokens stay in the cache, where the next reading finds them."""

    count: int = 12


@dataclass(frozen=True, slots=True)
class Ghost:
    """`pieces` are the tokens as text, joined if a character is split across them. Ends before `<|endoftext|>` and
    before bytes that are not valid UTF-8."""

    weights: Weights
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)
