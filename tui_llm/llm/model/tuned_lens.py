"""The tuned lens (Belrose et al. 2023, arXiv:2303.08112): an affine translator before the logit lens, one a layer.

The logit lens applies the final LayerNorm and output head to an inner residual stream h, though the blocks in between
would still change its basis, scale and mean. The tuned lens of layer ℓ first adds what they change on average:

    lens(h) = head(norm(h + W h + b))        W (C, C) and b (C,), fitted to the model; zero: the logit lens

Letters as in `model.py`: T tokens, C the width; N is the number of blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TunedLens:
    """The translators of the streams before each of N blocks: row 0 is the embedding's. weight (N, C, C), bias (N, C)."""

    weight: Tensor
    bias: Tensor

    @staticmethod
    def identity(layers: int, width: int) -> TunedLens:
        """With it the tuned lens is the logit lens, bit for bit."""
        return TunedLens(torch.zeros(layers, width, width), torch.zeros(layers, width))

    @property
    def layers(self) -> int:
        return self.weight.shape[0]

    @property
    def width(self) -> int:
        return self.weight.shape[1]

    def translated(self, row: int, stream: Tensor) -> Tensor:
        """h + W h + b for residual streams h (…, C) of row `row`, in their dtype. After the last block the stream is not
        changed: the last row is the model's own prediction."""
        if row >= self.layers:
            return stream
        weight, bias = (one[row].to(stream.device, torch.float32) for one in (self.weight, self.bias))
        return (stream + torch.nn.functional.linear(stream.float(), weight, bias)).to(stream.dtype)

    def all_translated(self, streams: Tensor) -> Tensor:
        """The streams (N + 1, …, C) of all rows, translated."""
        return torch.stack([self.translated(row, stream) for row, stream in enumerate(streams)])
