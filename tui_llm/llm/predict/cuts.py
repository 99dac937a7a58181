"""Which tokens top-k, top-p and min-p keep: all of the full distribution, or each of what the one before left. The
formulas are in `distribution.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tui_llm.facts.sampler import SamplerSettings

Array = npt.NDArray[Any]

# The rounding error of a float32 sum of probabilities: 0.4 + 0.3 must reach a top-p of 0.7.
ROUNDING = 1e-6


def kept_count(settings: SamplerSettings, tempered: Array, cumulative: Array) -> int:
    """The length of the prefix that every rule keeps. A token of probability 0 is never kept."""
    count = int((tempered > 0).sum())
    if settings.top_k:
        count = min(count, settings.top_k)
    if settings.top_p < 1:
        before = cumulative - tempered  # a token is kept if the sum before it is less than p
        count = min(count, int((before < settings.top_p - ROUNDING).sum()))
    if settings.min_p:
        least = settings.min_p * float(tempered[0]) * (1 - ROUNDING)
        count = min(count, int((tempered >= least).sum()))
    return count


@np.errstate(all="ignore")  # −inf is a logit, and the quotient may overflow
def kept_in_sequence(scores: Array, settings: SamplerSettings) -> Array:
    """bool (V,): the ids that transformers' warpers leave of scores (V,), float32: temperature, top-k, top-p, min-p.
    In float32 and with strict comparisons, as there, so that ties and rounding at a boundary fall on the same side."""
    scaled = scores / np.float32(settings.temperature)
    if not np.isfinite(scaled.max()):  # a temperature so small that the quotient overflows
        wide = scores.astype(np.float64)
        scaled = ((wide - wide.max()) / settings.temperature).astype(np.float32)
    if settings.top_k:
        k = min(settings.top_k, len(scaled))
        scaled = np.where(scaled < np.partition(scaled, -k)[-k], np.float32(-np.inf), scaled)
    if settings.top_p < 1:
        ids = np.argsort(scaled, kind="stable")
        sums = _softmax(scaled[ids]).cumsum(dtype=np.float64).astype(np.float32)
        cut = sums <= np.float32(1 - settings.top_p)
        cut[-1] = False
        scaled[ids[cut]] = -np.inf
    if settings.min_p:
        probability = _softmax(scaled)
        cut = probability < np.float32(settings.min_p) * probability.max()
        cut[probability.argmax()] = False
        scaled[cut] = -np.inf
    kept: Array = ~np.isneginf(scaled)
    return kept


def _softmax(logits: Array) -> Array:
    """Softmax of logits (V,), float32."""
    powers = np.exp(logits - logits.max())
    return powers / powers.sum(dtype=np.float64).astype(np.float32)
