"""Compute the model's loss on each training pair."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tui_llm.instruments.pairs.question import Pairs, PairsQuestion
from tui_llm.session.desk import Desk


def answer(desk: Desk, question: PairsQuestion, overtaken: Callable[[], bool]) -> Pairs:
    """Raises `Overtaken`. A text without tokens has no pairs, and `mean` is None."""
    request = dataclasses.replace(question.request, position=None, target=None, tokenizer=None, top=1, scores=True)
    read = desk.read(request, overtaken)
    scores = read.scores[1:]
    losses = [score.surprisal for score in scores if score is not None]
    mean = sum(losses) / len(losses) if losses else None
    tokens = read.tokens
    return Pairs(read.weights, tokens.count, tokens.first, read.fed, tokens.tokens, scores, mean)
