"""Compute the attention weights of one query token, softmax(q · k ÷ √D), for every head, and their means."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.instruments.answers import answers
from tui_llm.instruments.attention.question import AttentionMap, AttentionQuestion, AttentionRow
from tui_llm.instruments.trace import attention
from tui_llm.session.open_model import OpenModel


@answers(AttentionQuestion)
@torch.inference_mode()
def answer(open_model: OpenModel, question: AttentionQuestion, overtaken: Callable[[], bool]) -> AttentionMap:
    """Raises `UserError` if the text has no such token, or if the attention weights contain NaN."""
    rows, place = attention(open_model, question.request, question.number, overtaken)  # (N, H, T)
    if not rows.isfinite().all():
        raise UserError(
            "the attention holds NaN: the weights are damaged or training has diverged; open another model or an "
            "earlier checkpoint"
        )
    layers = rows.mean(1)  # (N, T)
    return AttentionMap(
        open_model.weights(),
        place,
        tuple(attention_rows(layer) for layer in rows),
        attention_rows(layers),
        attention_rows(layers.mean(0, keepdim=True))[0],
    )


def attention_rows(rows: Tensor) -> tuple[AttentionRow, ...]:
    """Convert rows of attention weights (R, T), each summing to 1, to `AttentionRow`."""
    entropies = torch.special.entr(rows.double()).sum(-1).tolist()
    peaks = rows.amax(-1, keepdim=True)
    places = torch.arange(rows.size(-1)).expand_as(rows)
    strongest = places.where(rows == peaks, rows.size(-1)).amin(-1).tolist()  # the first on a tie
    return tuple(
        AttentionRow(tuple(weights), first, entropy, math.exp(entropy))
        for weights, first, entropy in zip(rows.tolist(), strongest, entropies, strict=True)
    )
