"""Any range of rows of the sorted vocabulary, and search in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tui_llm.common.errors import UserError
from tui_llm.facts.prediction import Candidate
from tui_llm.instruments.answers import answers
from tui_llm.instruments.vocabulary.question import (
    ORDERS,
    FindQuestion,
    VocabularyMatch,
    VocabularyPage,
    VocabularyQuestion,
)
from tui_llm.llm.predict.distribution import Processed
from tui_llm.llm.predict.softmax import Array
from tui_llm.session.open_model import OpenModel

_KEY = "vocabulary"


@dataclass
class _Known:
    """Cached per model: its tokens and the sort orders that do not depend on a prediction. `of` and `places` (id →
    index by probability) belong to the last prediction."""

    bytes: list[bytes]
    texts: list[str]
    orders: dict[str, Array] = field(default_factory=dict)
    of: Array | None = None
    places: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@answers(VocabularyQuestion)
def page(open_model: OpenModel, question: VocabularyQuestion, overtaken: Callable[[], bool]) -> VocabularyPage:
    """Raises `UserError` if there is nothing to predict from, or the order is unknown."""
    _check(question.order)
    known = _known(open_model)
    processed = open_model.prediction(question.request, overtaken)
    ids = _ids(known, processed, question.order)
    if question.find:
        ids = ids[_matching(known, question.find)[ids]]
    start, stop = max(0, question.start), max(0, question.stop)
    rows = _rows(known, processed, ids[start:stop])
    return VocabularyPage(question, open_model.weights(), len(ids), start, rows)


@answers(FindQuestion)
def find(open_model: OpenModel, question: FindQuestion, overtaken: Callable[[], bool]) -> VocabularyMatch:
    """Raises `UserError` if there is nothing to predict from, the order is unknown, or the search text is empty."""
    _check(question.order)
    known = _known(open_model)
    ids = _ids(known, open_model.prediction(question.request, overtaken), question.order)
    places = _matching(known, question.find)[ids].nonzero()[0]  # ascending
    if not len(places):
        return VocabularyMatch(question, 0)
    at = int(np.searchsorted(places, question.after, side="right")) % len(places)
    return VocabularyMatch(question, len(places), int(places[at]), at + 1, int(ids[places[at]]))


def _check(order: str) -> None:
    if order not in ORDERS:
        raise UserError(f"there is no order {order!r}; choose one of {', '.join(ORDERS)}")


def _known(open_model: OpenModel) -> _Known:
    known = open_model.remembered.get(_KEY)
    if not isinstance(known, _Known):
        tokens = [open_model.token(id) for id in range(open_model.tokenizer.size)]
        known = open_model.remembered[_KEY] = _Known(
            [token.bytes for token in tokens], [token.text for token in tokens]
        )
    return known


def _ids(known: _Known, processed: Processed, order: str) -> Array:
    """(V,) int64: all ids in that order."""
    if order == "probability":
        return processed.order
    if order not in known.orders:
        ids = range(len(known.bytes))
        if order == "text":
            ids_sorted = sorted(ids, key=lambda id: (known.bytes[id], id))
        elif order == "length":
            ids_sorted = sorted(ids, key=lambda id: (-len(known.bytes[id]), known.bytes[id], id))
        else:
            ids_sorted = list(ids)
        known.orders[order] = np.array(ids_sorted)
    return known.orders[order]


def _rows(known: _Known, processed: Processed, ids: Array) -> tuple[Candidate, ...]:
    if known.of is not processed.order:
        known.places = np.empty_like(processed.order)
        known.places[processed.order] = np.arange(len(processed.order))
        known.of = processed.order
    return processed.at(known.places[ids], known.bytes.__getitem__)


def _matching(known: _Known, find: str) -> Array:
    """bool (V,), indexed by id: which tokens match."""
    size = len(known.bytes)
    hits = np.zeros(size, dtype=np.bool_)
    if not find:
        raise UserError("there is nothing to look for: type some text or an id")
    if len(find) > 1 and find[0] == "=":
        exact = find[1:].encode("utf-8", "replace")
        ids = [id for id, data in enumerate(known.bytes) if data == exact or known.texts[id] == find[1:]]
    elif len(find) > 1 and find[0] == "#":
        if not (find[1:].isascii() and find[1:].isdigit()):
            raise UserError(f"{find!r} is not an id; write # and a number from 0 to {size - 1}")
        ids = _typed_id(find[1:])
    else:
        ids = [id for id, text in enumerate(known.texts) if find in text]
        ids += _typed_id(find)
    hits[[id for id in ids if id < size]] = True
    return hits


def _typed_id(text: str) -> list[int]:
    """The id that `text` spells, as a list; empty if it is no number or too long for one."""
    return [int(text)] if text.isascii() and text.isdigit() and len(text) < 20 else []
