"""Replace one token in the middle of a text; the result is text plus ids."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Question


@dataclass(frozen=True, slots=True)
class SwapQuestion(Question["Swapped"]):
    """Replace the token at the request's position by token `id`, or by the tokens of `text`. The tokens after it are
    kept as ids, or dropped (`keep` false)."""

    id: int | None = None
    text: str | None = None
    keep: bool = True


@dataclass(frozen=True, slots=True)
class PlaceQuestion(Question[Reading]):
    """The reading at the request's position, with the candidates for the token there."""


@dataclass(frozen=True, slots=True)
class Swapped:
    """The new text: `prompt`, which encodes to the same ids as before, followed by the ids of `steps`. `dropped` is the
    number of tokens dropped, `position` that of the new token."""

    prompt: str
    steps: tuple[GeneratedToken, ...]
    dropped: int
    position: int
