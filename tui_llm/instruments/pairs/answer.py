"""Compute the model's loss on each training pair."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tui_llm.common.errors import UserError
from tui_llm.instruments.answers import answers
from tui_llm.instruments.pairs.question import Pairs, PairsQuestion
from tui_llm.session import reading
from tui_llm.session.open_model import OpenModel


@answers(PairsQuestion)
def answer(open_model: OpenModel, question: PairsQuestion, overtaken: Callable[[], bool]) -> Pairs:
    """Raises `Overtaken`, and `UserError` if the losses can't be computed. A text without tokens has no pairs, and `mean`
    is None."""
    request = dataclasses.replace(question.request, position=None, target=None, tokenizer=None, top=1, scores=True)
    read = reading.read(open_model, request, overtaken)
    if read.problem and read.prompt_ids and not read.scores:
        raise UserError(read.problem)
    scores = read.scores[1:]
    losses = [score.surprisal for score in scores if score is not None]
    mean = sum(losses) / len(losses) if losses else None
    tokens = read.tokens
    return Pairs(read.weights, tokens.count, tokens.first, read.fed, tokens.tokens, scores, mean)
