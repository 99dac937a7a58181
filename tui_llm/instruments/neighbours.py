"""Embedding neighbours, by cosine similarity: e·f ÷ (|e| |f|)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tui_llm.errors import UserError
from tui_llm.facts.neighbours import Neighbour, Neighbours, NeighboursQuestion
from tui_llm.instruments.desk import Desk


@torch.inference_mode()
def answer(desk: Desk, question: NeighboursQuestion, overtaken: Callable[[], bool]) -> Neighbours:
    """Raises `UserError` where the vocabulary has no such token."""
    size = desk.tokenizer.size
    if not 0 <= question.id < size:
        raise UserError(f"there is no token {question.id}; ids go from 0 to {size - 1}")
    table = desk.model.tokens.weight[:size].float()  # (V, C)
    own = table[question.id]
    cosines = torch.nn.functional.cosine_similarity(table, own[None], dim=1).cpu()  # (V,)
    cosines[question.id] = -torch.inf
    nearest = torch.sort(cosines, descending=True, stable=True).indices[: min(question.count, size - 1)].tolist()
    return Neighbours(
        desk.weights(),
        desk.token(question.id),
        table.shape[1],
        float(own.norm()),
        tuple(Neighbour(desk.token(id), float(cosines[id])) for id in nearest),
    )
