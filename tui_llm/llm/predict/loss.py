"""Cross-entropy, token by token.

The loss of one token is its surprisal, −ln p(target), in nats. With p = softmax(z) that is

    loss = logsumexp(z) − z[target]

and its gradient with respect to the logits is p − y, where y is 1 at the target and 0 elsewhere: a training step raises
the target's logit in proportion to 1 − p and lowers every other one in proportion to its own p. A target of several
tokens is teacher-forced: each token is predicted from the true tokens before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.facts.prediction import LossReading, TargetToken, TokenLoss
from tui_llm.llm.predict.distribution import check, log_softmax
from tui_llm.llm.predict.units import bits, perplexity, uniform_loss

EMPTY = "the target has no tokens: choose a token or type some text to measure the loss on"


def token_losses(logits: Tensor, targets: Tensor | Sequence[int]) -> list[TokenLoss]:
    """The loss of each of T targets (ids) given logits (T, V), in float32.

    Raises `UserError` for no targets, an id outside the vocabulary, or logits whose softmax is undefined (`check`),
    ValueError if the shapes don't match.
    """
    ids = torch.as_tensor(targets, dtype=torch.int64, device=logits.device)
    if len(ids) == 0:
        raise UserError(EMPTY)
    if logits.shape[:-1] != ids.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(ids.shape)} don't match")
    _check_ids(ids, logits.shape[-1])
    logits = logits.detach().float()
    check(logits)

    logit = logits.gather(-1, ids[:, None])  # (T, 1)
    logsumexp = logits.logsumexp(-1, keepdim=True)  # (T, 1)
    # log_softmax subtracts the largest logit first, so that large logits cost no precision.
    loss = 0.0 - logits.log_softmax(-1).gather(-1, ids[:, None])
    columns = (
        ids,
        1 + (logits > logit).sum(-1),
        logit[:, 0],
        logsumexp[:, 0],
        (-loss).exp()[:, 0],
        loss[:, 0],
        torch.expm1(-loss)[:, 0],  # p − 1, exact where p is nearly 1
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


def gradient(logits: Tensor, target: int) -> Tensor:
    """d loss / d logits = p − y for logits (V,) and a target id: float32 (V,), summing to 0. Raises `UserError` for an
    id outside the vocabulary or logits whose softmax is undefined."""
    _check_ids(torch.tensor([target]), logits.shape[-1])
    p_minus_y = log_softmax(logits.detach()).exp()
    p_minus_y[target] -= 1.0
    return p_minus_y


def _check_ids(ids: Tensor, vocabulary: int) -> None:
    wrong = ids[(ids < 0) | (ids >= vocabulary)]
    if len(wrong):
        raise UserError(f"there is no token {int(wrong[0])}: the model's ids go from 0 to {vocabulary - 1}")
