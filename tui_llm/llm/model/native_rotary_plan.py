"""Rotary positions of a training step with C between the matrix products (training_rotary.c): the tables of angles, and the
calls that turn queries and keys.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tui_llm.llm.model.model import Rotary
from tui_llm.llm.model.shape import GPTConfig

BEYOND = 16  # numbers after a table: the last vector of a row may go beyond its end


class RotaryPlan:
    """The calls for batches of N rows of T tokens. They turn queries and keys in place, after adding the bias, and with QK-norm
    after dividing by their root mean square, which turning does not change."""

    def __init__(self, library: Any, config: GPTConfig, shape: tuple[int, int, int], own: Tensor, low: int) -> None:
        """shape (B, T, threads) of the batches; own: room for each thread; low: whether queries and keys are in bf16. Only
        for a config with rotary positions."""
        (B, self.T, self.threads), self.library, self.own, self.low = shape, library, own, low
        self.N, self.D, self.epsilon = B * self.T, config.size, config.epsilon
        self.turned, self.stride = config.heads + config.key_heads, config.projected
        self.cosine, self.sine = (self._table(one) for one in Rotary(config)(torch.arange(self.T)))
        # For each block, the reciprocal root mean squares.
        self.scales = [torch.empty(self.N, self.turned) if config.qk_norm else None for _ in range(config.layers)]

    def _table(self, angles: Tensor) -> Tensor:
        """One half of (T, D) cosines or sines, whose halves are equal."""
        half = angles[:, : self.D // 2].flatten()
        return torch.cat((half, half.new_zeros(BEYOND)))

    def _scale(self, block: int) -> int | None:
        scales = self.scales[block]
        return None if scales is None else scales.data_ptr()

    def forward(self, block: int, qkv: Tensor, bias: int | None) -> Callable[[], object]:
        """Turns the queries and keys in qkv (N, (H + 2 K) D)."""
        return partial(
            self.library.rotate, qkv.data_ptr(), bias, self.cosine.data_ptr(), self.sine.data_ptr(), self._scale(block),
            self.own.data_ptr(), self.N, self.T, self.turned, self.stride, self.D, self.epsilon, self.low, self.threads,
        )  # fmt: skip

    def backward(
        self, block: int, d_qkv: Tensor, qkv: Tensor, bias: int | None, sums: Tensor, add: int
    ) -> Callable[[], object]:
        """Turns the gradient of queries and keys back. bias: where the gradient of their bias goes; sums: room for its parts."""
        return partial(
            self.library.rotate_backward, d_qkv.data_ptr(), qkv.data_ptr(), self.cosine.data_ptr(), self.sine.data_ptr(),
            self._scale(block), bias, sums.data_ptr(), self.own.data_ptr(), self.N, self.T, self.turned, self.stride, self.D,
            self.low, add, self.threads,
        )  # fmt: skip
