"""The whole vocabulary as one table: any range of its rows in a sort order, and the next row that matches a search."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.prediction import Candidate
from tui_llm.facts.request import Question

ORDERS = {
    "probability": "likeliest first, ties by lower id",
    "id": "by id",
    "text": "by the tokens' bytes",
    "length": "longest tokens first, by their bytes",
}
SEARCH = "text within a token; =text for exactly this token; #262 for an id; a number finds both"


@dataclass(frozen=True, slots=True)
class VocabularyQuestion(Question["VocabularyPage"]):
    """The rows start…stop − 1 (from 0) of the vocabulary in an order of `ORDERS`; with `find`, of the matching tokens
    only (see `SEARCH`)."""

    order: str = "probability"
    start: int = 0
    stop: int = 200
    find: str = ""


@dataclass(frozen=True, slots=True)
class VocabularyPage:
    """`count` is the total number of rows; rows[0] has index `start`."""

    question: VocabularyQuestion
    weights: Weights
    count: int
    start: int
    rows: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class FindQuestion(Question["VocabularyMatch"]):
    """The first row after index `after` whose token matches `find`, wrapping around at the end."""

    order: str = "probability"
    find: str = ""
    after: int = -1


@dataclass(frozen=True, slots=True)
class VocabularyMatch:
    """The match at index `place` (None: no match), the `number`th (from 1) of `matches` from the top."""

    question: FindQuestion
    matches: int
    place: int | None = None
    number: int = 0
    id: int = 0
