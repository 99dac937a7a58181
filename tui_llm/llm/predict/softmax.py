"""Logits (…, V) as log-probabilities and sums: log-softmax, logsumexp and entropy. The formulas are in `distribution.py`.

V is the size of the vocabulary; logits are sliced to it before (`Window`). They are float32; softmax and all that follows
is in float64: in float32, a probability below 1e-45 would be 0, as most of GPT-2's are at T = 0.1.

Everything that follows the logits is numpy, whatever made them: a command that runs no model imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tui_llm.common.errors import UserError

Array = npt.NDArray[Any]

QUIET = np.errstate(all="ignore")  # −inf is a logit, and what overflows to inf is meant to
_BLOCK = 1 << 16  # logits of several rows that are float64 at a time: what a core's cache holds
DIVERGED = "the weights are damaged or training has diverged; open another model or an earlier checkpoint"


def as_array(logits: Any) -> Array:
    """Logits (…, V) as float32: of an array, of numbers, or of a tensor of any float dtype on any device."""
    if hasattr(logits, "detach"):  # a tensor; torch itself is not needed here
        logits = logits.detach().float().cpu().numpy()
    with np.errstate(over="ignore"):
        return np.asarray(logits, dtype=np.float32)


def check(logits: Any, whose: str = "the model's logits", cure: str = DIVERGED) -> None:
    """Raises `UserError` if the softmax of logits (…, V) is undefined: a row with NaN or +inf, or one that is all −inf.
    The message starts with `whose`, the name of these logits, and ends with `cure`, what the user can do."""
    logits = as_array(logits)
    if logits.shape[-1] == 0:
        raise UserError("there are no logits: give at least one token")
    peak = logits.max(-1)  # it propagates NaN, so one pass covers all three cases
    if np.isnan(peak).any():
        raise UserError(f"{whose} contain NaN: {cure}")
    if np.isposinf(peak).any():
        raise UserError(f"{whose} contain +inf: {cure}")
    if np.isneginf(peak).any():
        raise UserError(f"{whose} are all −inf, so no token is possible: {cure}")


def log_softmax(logits: Any, temperature: float = 1.0) -> Array:
    """ln p of logits (…, V) at a temperature ≥ 0, float64. At 0 they must be (V,). Raises `UserError` as `check`
    does."""
    logits = as_array(logits)
    check(logits)
    if temperature == 0:
        one_hot = np.full(logits.shape, -np.inf)
        one_hot[logits.argmax()] = 0.0  # the first of equal ones
        return one_hot
    return unchecked_log_softmax(logits, temperature)


def probabilities(logits: Any, temperature: float = 1.0) -> Array:
    """Softmax of logits (…, V) at a temperature ≥ 0, float64. At 0 they must be (V,): one-hot on the largest logit, on a
    tie the lowest id. Raises `UserError` as `check` does."""
    return np.exp(log_softmax(logits, temperature))


@QUIET
def unchecked_log_softmax(logits: Array, temperature: float) -> Array:
    """ln p of logits (…, V) that were checked, at a temperature > 0, float64."""
    # Subtract the maximum before dividing: at T = 1e-10 the largest stays 0 and the others go to −inf.
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    if temperature != 1:
        shifted /= temperature
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted


@QUIET
def log_total(logits: Array) -> tuple[Array, Array]:
    """The largest logit of each row of logits (…, V), and ln Σ e^(z − largest), both float64 (…). Their sum is logsumexp."""
    peak = logits.max(-1).astype(np.float64)
    return peak, np.log(_in_blocks(lambda rows: np.exp(rows - rows.max(-1, keepdims=True)).sum(-1), logits))


def _in_blocks(function: Callable[[Array], Array], logits: Array) -> Array:
    """`function` of a few rows (n, V) of logits (…, V) at a time, as float64, which gives (n,): float64 (…). Whole, they would
    be read from memory for each of its steps (four times as slow), and take twice the room of the logits each time."""
    rows = logits.reshape(-1, logits.shape[-1])
    count = max(1, _BLOCK // logits.shape[-1])
    parts = [function(rows[at : at + count].astype(np.float64)) for at in range(0, len(rows), count)]
    return np.concatenate([np.empty(0), *parts]).reshape(logits.shape[:-1])


def logsumexp(logits: Array) -> Array:
    """ln Σ e^z of each row of logits (…, V), float64 (…)."""
    peak, rest = log_total(logits)
    return peak + rest


def entropy(logits: Any) -> float:
    """−Σ p ln p of softmax(logits (V,)), in nats, with 0 ln 0 = 0. Between 0 (one-hot) and ln V (uniform)."""
    return float(entropies(logits))


def entropies(logits: Any) -> Array:
    """The entropy of each row of logits (…, V), in nats: float64 (…). Raises `UserError` as `check` does."""
    logits = as_array(logits)
    check(logits)
    return _in_blocks(lambda rows: entropies_of(unchecked_log_softmax(rows, 1.0)), logits)


def entropies_of(log_p: Array) -> Array:
    """The entropy of each row of ln p (…, V), in nats: float64 (…)."""
    terms = np.exp(log_p) * np.maximum(log_p, np.finfo(log_p.dtype).min)  # 0 × −inf would be NaN
    return 0.0 - terms.sum(-1, dtype=np.float64)  # avoids −0.0
