"""Evaluate a model on a held-out text: nats per token, and bits per byte.

Losses per token can't be compared between vocabularies, because their tokens differ in length; bits per byte can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tui_llm.common.errors import UserError
from tui_llm.llm.model.model import GPT
from tui_llm.llm.predict import softmax
from tui_llm.llm.predict.units import perplexity

LOGITS = 1 << 23  # logits per batch of windows: larger batches are not faster


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`tokens` predicted tokens, which make `bytes` bytes of text; `loss` is their mean in nats per token."""

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
    """The loss on all of `ids` but the first, in float32. Windows of the model's context overlap by half, so that each
    token (except in the first window) is predicted from at least half a context of text.

    token_bytes: the bytes of a token id.
    progress: called with (tokens done, tokens in all).

    Raises `UserError` for fewer than two tokens, and as `softmax.check` does.
    """
    if len(ids) < 2:
        raise UserError("the text is too short to measure a loss on: two tokens at least are needed")
    total, counted = 0.0, 0
    for rows, new in _batches(ids, min(model.config.context, len(ids) - 1), LOGITS // model.config.vocabulary):
        x = torch.tensor(rows, device=model.device)  # (B, T + 1)
        logits = model(x[:, :-1], last=new)[..., : model.used].float()  # (B, new, V), without padding rows
        summed = float(F.cross_entropy(logits.flatten(0, 1), x[:, -new:].flatten(), reduction="sum"))
        if not math.isfinite(summed):
            softmax.check(logits)
        total += summed
        counted += len(rows) * new
        if progress is not None:
            progress(counted, len(ids) - 1)
    return Evaluation(counted, sum(len(token_bytes(id)) for id in ids[1:]), total / counted)


def _batches(ids: Sequence[int], context: int, positions: int) -> Iterator[tuple[list[Sequence[int]], int]]:
    """Batches of windows of `context` + 1 ids that overlap by half, with at most `positions` predictions each (at least
    one window), and the number of positions at the end of each window that no earlier one has predicted: all in the
    first window, possibly fewer in a short last one."""
    stride = max(1, context // 2)
    yield [ids[: context + 1]], context
    starts = list(range(stride, len(ids) - 1 - (context - stride), stride))
    whole = [start for start in starts if start + context < len(ids)]
    size = max(1, positions // stride)
    for first in range(0, len(whole), size):
        yield [ids[start : start + context + 1] for start in whole[first : first + size]], stride
    for start in starts[len(whole) :]:
        row = ids[start : start + context + 1]
        yield [row], len(row) - 1 - (context - stride)
