"""Which tokens top-k, top-p and min-p keep: all of the full distribution, or each of what the one before left. The
formulas are in `distribution.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from tui_llm.facts.sampler import SamplerSettings

# The rounding error of a float32 sum of probabilities: 0.4 + 0.3 must reach a top-p of 0.7.
ROUNDING = 1e-6


def kept_count(settings: SamplerSettings, tempered: Tensor, cumulative: Tensor) -> int:
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


def kept_in_sequence(scores: Tensor, settings: SamplerSettings) -> Tensor:
    """bool (V,): the ids that transformers' warpers leave of scores (V,), float32: temperature, top-k, top-p, min-p.
    In float32 and with strict comparisons, as there, so that ties and rounding at a boundary fall on the same side."""
    scaled = scores / settings.temperature
    if not bool(scaled.amax().isfinite()):  # a temperature so small that the quotient overflows
        scaled = ((scores.double() - scores.max().double()) / settings.temperature).float()
    if settings.top_k:
        least = scaled.topk(min(settings.top_k, len(scaled))).values[-1]
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    if settings.top_p < 1:
        rising, ids = scaled.sort()
        cut = rising.softmax(-1).cumsum(-1) <= 1 - settings.top_p
        cut[-1] = False
        scaled = scaled.masked_fill(torch.empty_like(cut).scatter_(0, ids, cut), -torch.inf)
    if settings.min_p:
        probability = scaled.softmax(-1)
        cut = probability < settings.min_p * probability.max()
        cut[probability.argmax()] = False
        scaled = scaled.masked_fill(cut, -torch.inf)
    return ~scaled.isneginf()
