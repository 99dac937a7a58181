"""The output head for training on a GPU: its rows padded to a multiple of 64 within the product.

50,257 rows of bf16 don't begin at multiples of 16 bytes, and cuBLAS then falls back to slower kernels: nanoGPT pads its
embedding to 50,304 rows. Here the product alone has the padding, so the model folder keeps the vocabulary's size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tui_llm.llm.model.model import GPT

MULTIPLE = 64  # rows
FEW = 512  # tokens: up to here copying the weight takes longer than the product gains


class AlignedHead(nn.Linear):
    """`nn.Linear` without bias with the same weight and results."""

    def forward(self, x: Tensor) -> Tensor:
        """x (…, C) → (…, V). The result is a view of a wider tensor."""
        padding = -self.out_features % MULTIPLE
        if not padding or x.numel() <= FEW * self.in_features:
            return super().forward(x)
        return F.linear(x, F.pad(self.weight, (0, 0, 0, padding)))[..., : self.out_features]


def align(model: GPT) -> None:
    """Have the model's head multiply with padded rows. Its weight stays the same object, tied or not."""
    if type(model.head) is nn.Linear and model.head.bias is None:
        model.head.__class__ = AlignedHead
