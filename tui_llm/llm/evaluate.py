"""How well a model predicts a text that it did not learn from: nats per token, and bits per byte.

Losses per token can't be compared between vocabularies, since their tokens differ in length; bits per byte can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tui_llm.errors import UserError
from tui_llm.llm.model import GPT
from tui_llm.llm.units import perplexity


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`tokens` were predicted, holding `bytes` of text; `loss` is their mean in nats per token."""

    tokens: int
    bytes: int
    loss: float

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """loss × tokens ÷ (ln 2 × bytes)."""
        return self.loss * self.tokens / (math.log(2) * self.bytes)


@torch.inference_mode()
def evaluate(
    model: GPT,
    ids: Sequence[int],
    token_bytes: Callable[[int], bytes],
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """The loss on all of `ids` but the first, in float32: windows of the model's context overlap by half, so that each
    token (but the first window's) is predicted from at least half a context of text before it.

    Raises `UserError` on fewer than two tokens.
    """
    if len(ids) < 2:
        raise UserError("the text is too short to measure a loss on: two tokens at least are needed")
    context = min(model.config.context, len(ids) - 1)
    stride = max(1, context // 2)
    starts = [0, *range(stride, len(ids) - 1 - (context - stride), stride)]
    total, counted = 0.0, 0
    for start in starts:
        row = ids[start : start + context + 1]  # the last one may be shorter
        new = len(row) - 1 - (context - stride if start else 0)  # those that no window before has predicted
        logits = model(torch.tensor([row[:-1]], device=model.device), last=new)[0].float()  # (new, V)
        total += float(F.cross_entropy(logits, torch.tensor(row[-new:], device=model.device), reduction="sum"))
        counted += new
        if progress is not None:
            progress(counted, len(ids) - 1)
    return Evaluation(counted, sum(len(token_bytes(id)) for id in ids[1:]), total / counted)
