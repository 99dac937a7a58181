"""The probability that a text goes on with certain bytes, from a model with tokens of its own: of another vocabulary."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from tui_llm.common.errors import Overtaken
from tui_llm.facts.request import Request
from tui_llm.session.open_model import OpenModel

_WAYS, _REST = 3, 0.01  # ways to write the same bytes that are followed: so many, and with so much of the likeliest's p
_BACK = 8  # tokens, at most, whose text may be tokenized differently once it goes on
_VOCABULARY = "guess: bytes"  # key of the cache


def continues(model: OpenModel, before: str, text: str, overtaken: Callable[[], bool]) -> float:
    """P(`before` goes on with `text`), whatever follows: a sum over all tokens that begin with it, and over the likeliest ways
    to write the last word in tokens. After `gene` a model with the token `generous` gives little to the token `r`, but much to
    the letter. Raises `Overtaken`."""
    request = Request(prompt=before, start_token=not before)
    kept, tail = _last_word(model, model.ids(request))
    wanted, (vocabulary, first) = tail + text.encode(), _vocabulary(model)
    ways: list[list[tuple[float, list[int]]]] = [[] for _ in wanted]  # [n]: tokens that are exactly the first n bytes
    ways[0].append((1.0, kept))
    given, found = 0.0 if tail else 1.0, 0.0  # P(tail), P(tail + text)
    for at in range(len(wanted)):
        likeliest = sorted(ways[at], reverse=True)[:_WAYS]
        for p, ids in likeliest:
            if p < _REST * likeliest[0][0]:
                break
            if overtaken():
                raise Overtaken
            model.feed(ids, overtaken)
            processed = model.prediction_at(request, ids, len(ids))
            begin = first[processed.order] == wanted[at]  # of a small part of the vocabulary
            for id, conditional in zip(processed.order[begin].tolist(), processed.raw[begin].tolist(), strict=True):
                written, share = vocabulary[id], p * conditional
                if at < len(tail) and written.startswith(tail[at:]):
                    given += share
                if written.startswith(wanted[at:]):
                    found += share
                elif wanted.startswith(written, at):
                    ways[at + len(written)].append((share, [*ids, id]))
    return max(found / given, sys.float_info.min)


def _last_word(model: OpenModel, ids: list[int]) -> tuple[list[int], bytes]:
    """The ids before the last word, at least one, and the bytes of the word, from its space on."""
    for back in range(1, min(_BACK + 1, len(ids)) + 1):
        if model.tokenizer.is_special(ids[-back]):
            return ids[: len(ids) - back + 1], b"".join(map(model.bytes_of, ids[len(ids) - back + 1 :]))
        if back < len(ids) and model.bytes_of(ids[-back])[:1].isspace():
            return ids[:-back], b"".join(map(model.bytes_of, ids[-back:]))
    return ids, b""


def _vocabulary(model: OpenModel) -> tuple[list[bytes], np.typing.NDArray[np.int16]]:
    """The bytes of each token, none for a special one; and the first of them, -1 for none."""
    known: tuple[list[bytes], np.typing.NDArray[np.int16]] | None = model.remembered.get(_VOCABULARY)
    if known is None:
        special = model.tokenizer.is_special
        tokens = [b"" if special(id) else model.bytes_of(id) for id in range(model.tokenizer.size)]
        known = tokens, np.array([token[0] if token else -1 for token in tokens], np.int16)
        model.remembered[_VOCABULARY] = known
    return known
