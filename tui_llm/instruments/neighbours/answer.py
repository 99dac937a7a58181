"""Nearest embeddings by cosine similarity: e·f ÷ (|e| |f|)."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from tui_llm.common.errors import UserError
from tui_llm.instruments.answers import answers
from tui_llm.instruments.neighbours.question import Neighbour, Neighbours, NeighboursQuestion
from tui_llm.session.open_model import OpenModel


def named(open_model: OpenModel, text: str) -> int:
    """The id of the single token that `text` encodes to, or the id in `#id`. Raises `UserError` if there are none or
    several."""
    if number := re.fullmatch(r"#([0-9]{1,9})", text):
        return int(number[1])
    ids = open_model.tokenizer.encode_after(text)
    if not ids:
        raise UserError("there is no token in an empty text; give one, such as ' king', or #464 for the id 464")
    if len(ids) > 1:
        pieces = " ".join(repr(open_model.token(id).text) for id in ids[:8]) + (" …" if len(ids) > 8 else "")
        raise UserError(f"{text[:40]!r} is {len(ids)} tokens: {pieces}; give one of them, or #{ids[0]} for an id")
    return ids[0]


@answers(NeighboursQuestion)
@torch.inference_mode()
def answer(open_model: OpenModel, question: NeighboursQuestion, overtaken: Callable[[], bool]) -> Neighbours:
    """Raises `UserError` if the vocabulary has no such token."""
    size = open_model.tokenizer.size
    id = question.id if question.text is None else named(open_model, question.text)
    if not 0 <= id < size:
        raise UserError(f"there is no token {id}; ids go from 0 to {size - 1}")
    table = open_model.embedding[:size].float()  # (V, C)
    own = table[id]
    cosines = torch.nn.functional.cosine_similarity(table, own[None], dim=1).cpu()  # (V,)
    cosines[id] = -torch.inf
    nearest = torch.sort(cosines, descending=True, stable=True).indices[: min(question.count, size - 1)].tolist()
    return Neighbours(
        open_model.weights(),
        open_model.token(id),
        table.shape[1],
        float(own.norm()),
        tuple(Neighbour(open_model.token(near), float(cosines[near])) for near in nearest),
    )
