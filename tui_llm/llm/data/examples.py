"""Training examples from a sequence of tokens: the target at each position is the next token.

n tokens give n − 1 (input, target) pairs. A training batch has many of them, as two arrays shifted by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def pairs(ids: Sequence[int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """The n − 1 training examples of a sequence: (the tokens so far, the next one)."""
    for end in range(1, len(ids)):
        yield tuple(ids[:end]), ids[end]


class Batches:
    """Training batches: x (B, T) and y (B, T), where y[b, t] is the token after x[b, t].

    The ids are cut into blocks of T, in an order that is reshuffled each epoch, from a random offset; an epoch has
    almost every token once and none twice. Row k depends on (seed, k) only: a resumed run gets the same batches without
    any saved state. Raises ValueError if there are too few ids for one block.
    """

    def __init__(self, ids: npt.NDArray[np.unsignedinteger[Any]], block_size: int, batch_size: int, seed: int) -> None:
        if len(ids) <= block_size:
            raise ValueError(f"{len(ids)} tokens are too few for a block of {block_size} and its shifted targets")
        self.ids, self.block_size, self.batch_size, self.seed = ids, block_size, batch_size, seed
        spare = len(ids) - 1 - block_size
        self.blocks = 1 + max(0, spare - block_size + 1) // block_size  # leaves space for the random offset
        self._slack = len(ids) - 1 - self.blocks * block_size
        self._epoch: tuple[int, npt.NDArray[np.int64]] | None = None

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch `number` (from 0), as int64 tensors on the CPU."""
        starts = np.array(self.starts(number))
        rows = self.ids[starts[:, None] + np.arange(self.block_size + 1)].astype(np.int64)
        both = torch.from_numpy(rows)
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    def starts(self, number: int) -> list[int]:
        """Where in the ids each row of batch `number` begins."""
        first = number * self.batch_size
        return [self._start(row) for row in range(first, first + self.batch_size)]

    def _start(self, row: int) -> int:
        epoch, place = divmod(row, self.blocks)
        if self._epoch is None or self._epoch[0] != epoch:
            random = np.random.Generator(np.random.Philox(key=[self.seed % 2**64, epoch]))
            phase = random.integers(0, min(self._slack, self.block_size) + 1)
            self._epoch = epoch, random.permutation(self.blocks) * self.block_size + phase
        return int(self._epoch[1][place])


def evenly_spaced(ids: npt.NDArray[np.unsignedinteger[Any]], block_size: int, rows: int) -> tuple[Tensor, Tensor]:
    """Up to `rows` evenly spaced rows (x, y) of `ids`, each (rows, block_size), always the same: for the validation
    loss."""
    last = len(ids) - 1 - block_size
    starts = np.unique(np.linspace(0, last, rows).astype(np.int64))
    both = torch.from_numpy(ids[starts[:, None] + np.arange(block_size + 1)].astype(np.int64))
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()
