"""Fit a tuned lens to a model: the translators that minimize KL(final ‖ lens), as in arXiv:2303.08112, §3.

    loss of row ℓ = mean over tokens of Σ p (ln p − ln q)      p: the model's prediction, q: that of the lens's row

The model itself does not change; each row's translator has a loss of its own, so all are fitted at once. Adam, with a
learning rate that falls linearly to zero. Letters as in `llm/model/tuned_lens.py`; V is the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.llm.model import device
from tui_llm.llm.model.tuned_lens import TunedLens

LEARNING_RATE = 4e-3
_LOGITS = 1 << 23  # computed at a time


class Readout(Protocol):
    """What a fit needs of a model, of any architecture."""

    layers: int
    width: int
    vocabulary: int

    def streams(self, ids: Sequence[int]) -> Tensor:
        """The residual streams (N + 1, T, C) of a text: before each block, and after the last."""
        ...

    def logits(self, stream: Tensor) -> Tensor:
        """Final LayerNorm and output head applied to streams (n, C): logits (n, V), float32, without padding ids. Its
        gradient is that of the streams."""
        ...


class LensFit:
    """`steps` steps from the logit lens on. `lens` is the fitted one so far."""

    def __init__(self, readout: Readout, steps: int, learning_rate: float = LEARNING_RATE) -> None:
        self.readout = readout
        start = TunedLens.identity(readout.layers, readout.width)
        self.lens = TunedLens(start.weight.requires_grad_(), start.bias.requires_grad_())
        self._optimizer = torch.optim.Adam([self.lens.weight, self.lens.bias], learning_rate, betas=(0.9, 0.999))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: max(0.0, 1 - step / steps))

    def step(self, rows: Iterable[Sequence[int]]) -> list[float]:
        """One step on a batch of texts. Returns the loss of each row of the lens, in nats per token, before the step."""
        self._optimizer.zero_grad()
        losses = divergences(self.readout, self.lens, rows, backward=True)
        self._optimizer.step()
        self._schedule.step()
        return losses

    @property
    def fitted(self) -> TunedLens:
        """The lens as it will be stored, rounded to float16."""
        return TunedLens(*(one.detach().half().float() for one in (self.lens.weight, self.lens.bias)))


def divergences(
    readout: Readout, lens: TunedLens, texts: Iterable[Sequence[int]], *, backward: bool = False
) -> list[float]:
    """KL(final ‖ lens) of each row of the lens but the last, whose KL is 0: the mean over all tokens of `texts`, in nats.
    With `backward`, its gradient is added to the lens's `.grad`. Raises `UserError` if one is not finite."""
    texts = list(texts)
    count, sums = sum(map(len, texts)), torch.zeros(readout.layers, dtype=torch.float64)
    for text in texts:
        streams = readout.streams(text)  # (N + 1, T, C)
        with device.threads(len(text) * readout.width * readout.vocabulary):
            for part in streams.split(max(1, _LOGITS // readout.vocabulary), dim=1):
                sums += _sums(readout, lens, part, count if backward else None)
    if not torch.isfinite(sums).all():
        raise UserError("the lens's predictions are not finite: the model's weights are damaged, or the fit diverged")
    means: list[float] = (sums / count).tolist()
    return means


def _sums(readout: Readout, lens: TunedLens, streams: Tensor, count: int | None) -> Tensor:
    """The KL of each row, summed over the tokens of `streams` (N + 1, T, C); with `count`, also the gradient of the sum
    ÷ count."""
    with torch.no_grad():
        final = readout.logits(streams[-1]).log_softmax(-1)
        p = final.exp()
        negative_entropy = float(torch.dot(p.flatten(), final.flatten()))  # Σ p ln p
    sums = torch.zeros(readout.layers, dtype=torch.float64)
    for row in range(readout.layers):
        with torch.set_grad_enabled(count is not None):
            log_q = readout.logits(lens.translated(row, streams[row])).log_softmax(-1)
            cross_entropy = -torch.dot(p.flatten(), log_q.flatten())  # a quarter faster than kl_div, backward included
        sums[row] = negative_entropy + cross_entropy.item()
        if count is not None:
            (cross_entropy / count).backward()
    return sums
