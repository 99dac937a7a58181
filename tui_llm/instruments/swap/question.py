"""Another token in the middle of a text: what the text is then, ids and all."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.request import Question


@dataclass(frozen=True, slots=True)
class SwapQuestion(Question):
    """Token `id`, or the tokens of `text`, in the place of the one at the request's position. What follows stays, as the
    ids that it is, or goes (`keep` false)."""

    id: int | None = None
    text: str | None = None
    keep: bool = True


@dataclass(frozen=True, slots=True)
class PlaceQuestion(Question):
    """The reading at the request's position, with the candidates for the token there."""


@dataclass(frozen=True, slots=True)
class Swapped:
    """The new text: `prompt`, which is encoded as the ids that stood there, and `steps`, whose ids follow it. `dropped`
    counts the tokens that went; `position` is where the new token stands."""

    prompt: str
    steps: tuple[GeneratedToken, ...]
    dropped: int
    position: int
