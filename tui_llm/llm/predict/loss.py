"""Cross-entropy, token by token.

The loss of one token is its surprisal, −ln p(target), in nats. With p = softmax(z) that is

    loss = logsumexp(z) − z[target]

and its gradient with respect to the logits is p − y, where y is 1 at the target and 0 elsewhere: gradient descent on the
logits themselves would raise the target's in proportion to 1 − p and lower every other one in proportion to its own p. A
training step changes weights, which all logits share. A target of several tokens is teacher-forced: each token is predicted
from the true tokens before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tui_llm.common.errors import UserError
from tui_llm.facts.prediction import LossReading, TargetToken, TokenLoss
from tui_llm.llm.predict.softmax import as_array, check, log_total, probabilities
from tui_llm.llm.predict.units import bits, perplexity, uniform_loss

EMPTY = "the target has no tokens: choose a token or type some text to measure the loss on"


def token_losses(logits: Any, targets: Any) -> list[TokenLoss]:
    """The loss of each of T targets (ids) given logits (T, V), in float64.

    Raises `UserError` for no targets, an id outside the vocabulary, or logits whose softmax is undefined (`check`),
    ValueError if the shapes don't match.
    """
    ids, logits = np.asarray(targets, dtype=np.int64), as_array(logits)
    if len(ids) == 0:
        raise UserError(EMPTY)
    if logits.shape[:-1] != ids.shape:
        raise ValueError(f"logits {logits.shape} and targets {ids.shape} don't match")
    _check_ids(ids, logits.shape[-1])
    check(logits)
    logit = np.take_along_axis(logits, ids[:, None], -1)  # (T, 1)
    largest, rest = log_total(logits)
    # logsumexp(z) = largest + rest. The largest logit is subtracted first, so that large ones cost no precision.
    loss = rest - (logit[:, 0] - largest)
    columns = (
        ids,
        1 + (logits > logit).sum(-1),
        logit[:, 0],
        largest + rest,
        np.exp(-loss),
        loss,
        np.expm1(-loss),  # p − 1, exact where p is nearly 1
    )
    return [TokenLoss(*cells) for cells in zip(*(column.tolist() for column in columns), strict=True)]


def loss_reading(text: str, tokens: Sequence[TargetToken], vocabulary: int) -> LossReading:
    """The loss on the target `text`, whose tokens are `tokens`; `vocabulary` is V ≥ 1. Raises `UserError` for no
    tokens."""
    if not tokens:
        raise UserError(EMPTY)
    total = math.fsum(token.loss.nats for token in tokens)
    mean = total / len(tokens)
    return LossReading(text, tuple(tokens), total, mean, bits(mean), perplexity(mean), uniform_loss(vocabulary))


def gradient(logits: Any, target: int) -> npt.NDArray[np.float64]:
    """d loss / d logits = p − y for logits (V,) and a target id: float64 (V,), summing to 0. Raises `UserError` for an
    id outside the vocabulary or logits whose softmax is undefined."""
    _check_ids(np.array([target]), logits.shape[-1])
    p_minus_y: npt.NDArray[np.float64] = probabilities(logits)
    p_minus_y[target] -= 1.0
    return p_minus_y


def _check_ids(ids: npt.NDArray[np.int64], vocabulary: int) -> None:
    wrong = ids[(ids < 0) | (ids >= vocabulary)]
    if len(wrong):
        raise UserError(f"there is no token {int(wrong[0])}: the model's ids go from 0 to {vocabulary - 1}")
