"""Predictions and losses: from tensors to plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch

from tui_llm.facts.prediction import Candidate, Distribution, LossReading, Rest, TargetToken
from tui_llm.llm.predict import distribution
from tui_llm.llm.predict.loss import TokenLoss, summary
from tui_llm.llm.tokens.token_bytes import token_text


def distribution_reading(
    processed: distribution.Processed, top: int, bytes_of_id: Callable[[int], bytes]
) -> Distribution:
    """The candidate table as plain data: `top` rows, and one for the rest."""
    logits, settings = processed.sorted, processed.settings
    peak, total = processed.peak, processed.total
    rest = processed.rest(top)
    return Distribution(
        settings,
        len(logits.order),
        logits.logsumexp,
        logits.entropy,
        processed.kept_count,
        processed.kept_mass,
        candidates(processed, top, bytes_of_id),
        Rest(rest.count, rest.raw_probability, rest.tempered, rest.probability, rest.kept),
        math.exp(logits.entropy),
        peak,
        total,
        peak + math.log(total),
        float(torch.tensor(logits.logsumexp, dtype=torch.float64).exp()),
    )


def candidates(
    processed: distribution.Processed, top: int, bytes_of_id: Callable[[int], bytes]
) -> tuple[Candidate, ...]:
    """The table's first `top` rows as plain data."""
    return candidates_of(processed.rows(top), bytes_of_id)


def candidates_of(given: Iterable[distribution.Row], bytes_of_id: Callable[[int], bytes]) -> tuple[Candidate, ...]:
    """Table rows as plain data."""
    rows = []
    for row in given:
        data = bytes_of_id(row.id)
        rows.append(
            Candidate(
                row.rank,
                row.id,
                data,
                token_text(data),
                row.logit,
                row.exp_logit,
                row.raw_probability,
                row.tempered,
                row.cumulative,
                row.probability,
                row.kept,
                row.score,
                row.scaled,
                row.numerator,
            )
        )
    return tuple(rows)


def loss_reading(
    text: str | None, losses: Sequence[TokenLoss], vocabulary: int, bytes_of_id: Callable[[int], bytes]
) -> LossReading:
    """A target's losses as plain data. `text` is the target as typed, None if it was given by id."""
    total, tokens = summary(losses, vocabulary), []
    for one in losses:
        data = bytes_of_id(one.id)
        tokens.append(
            TargetToken(
                one.id,
                data,
                token_text(data),
                one.rank,
                one.logit,
                one.logsumexp,
                one.probability,
                one.loss,
                one.gradient,
            )
        )
    shown = text if text is not None else tokens[0].text
    return LossReading(shown, tuple(tokens), total.sum, total.mean, total.bits, total.perplexity, total.uniform_loss)
