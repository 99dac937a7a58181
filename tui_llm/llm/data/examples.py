"""A sequence of tokens is its own labels: after each token comes the one to predict.

n tokens give n − 1 (input, target) pairs; a training batch is many of them at once, as two rows shifted by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def pairs(ids: Sequence[int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """The n − 1 training examples of a sequence: (the tokens so far, the one that comes next)."""
    for end in range(1, len(ids)):
        yield tuple(ids[:end]), ids[end]


class Batches:
    """Shifted rows for training: x (B, T) and y (B, T), where y[b, t] is the token after x[b, t].

    The ids are cut into blocks of T and dealt in an order that is shuffled anew each epoch, from a new starting point,
    so that every token is seen once an epoch. Row number k depends on (seed, k) alone: a resumed run needs no state
    to go on with the rows that an unbroken one would have seen.
    """

    def __init__(self, ids: npt.NDArray[np.unsignedinteger[Any]], block_size: int, batch_size: int, seed: int) -> None:
        if len(ids) <= block_size:
            raise ValueError(f"{len(ids)} tokens are too few for a block of {block_size} and its shifted targets")
        self.ids, self.block_size, self.batch_size, self.seed = ids, block_size, batch_size, seed
        spare = len(ids) - 1 - block_size
        self.blocks = 1 + max(0, spare - block_size + 1) // block_size  # leaves room for a starting point
        self._slack = len(ids) - 1 - self.blocks * block_size
        self._epoch: tuple[int, npt.NDArray[np.int64]] | None = None

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch number `number` (from 0), as int64 tensors on the CPU."""
        first = number * self.batch_size
        starts = np.array([self._start(row) for row in range(first, first + self.batch_size)])
        rows = self.ids[starts[:, None] + np.arange(self.block_size + 1)].astype(np.int64)
        both = torch.from_numpy(rows)
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    def _start(self, row: int) -> int:
        epoch, place = divmod(row, self.blocks)
        if self._epoch is None or self._epoch[0] != epoch:
            random = np.random.Generator(np.random.Philox(key=[self.seed % 2**64, epoch]))
            phase = random.integers(0, min(self._slack, self.block_size) + 1)
            self._epoch = epoch, random.permutation(self.blocks) * self.block_size + phase
        return int(self._epoch[1][place])


def spread(ids: npt.NDArray[np.unsignedinteger[Any]], block_size: int, rows: int) -> tuple[Tensor, Tensor]:
    """Up to `rows` rows (x, y) at even distances through `ids`, always the same ones: to measure validation loss on."""
    last = len(ids) - 1 - block_size
    starts = np.unique(np.linspace(0, last, rows).astype(np.int64))
    both = torch.from_numpy(ids[starts[:, None] + np.arange(block_size + 1)].astype(np.int64))
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()
