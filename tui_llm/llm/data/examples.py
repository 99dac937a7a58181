"""Training examples from a sequence of tokens: the target at each position is the next token.

n tokens give n − 1 (input, target) pairs. A training batch has many of them, as two arrays shifted by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Ids = npt.NDArray[np.unsignedinteger[Any]]
Ints = npt.NDArray[np.int64]


def pairs(ids: Sequence[int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """The n − 1 training examples of a sequence: (the tokens so far, the next one)."""
    for end in range(1, len(ids)):
        yield tuple(ids[:end]), ids[end]


class Batches:
    """Training batches: x (B, T) and y (B, T), where y[b, t] is the token after x[b, t].

    The ids are cut into blocks of T, in an order that is reshuffled each epoch, from a random offset; an epoch has
    almost every token once and none twice. With `separator`, the id that ends a document, the documents are shuffled each
    epoch before they are cut, so that a document has other neighbours in its block; a last one without end stays the
    last. Row k depends on (seed, k) only: a resumed run gets the same batches without any saved state. Raises ValueError
    if there are too few ids for one block.
    """

    def __init__(
        self,
        ids: Ids,
        block_size: int,
        batch_size: int,
        seed: int,
        *,
        separator: int | None = None,
    ) -> None:
        if len(ids) <= block_size:
            raise ValueError(f"{len(ids)} tokens are too few for a block of {block_size} and its shifted targets")
        self.ids, self.block_size, self.batch_size, self.seed = ids, block_size, batch_size, seed
        spare = len(ids) - 1 - block_size
        self.blocks = 1 + max(0, spare - block_size + 1) // block_size  # leaves space for the random offset
        self._slack = len(ids) - 1 - self.blocks * block_size
        self._documents = None if separator is None else document_starts(ids, separator)
        self._epoch: tuple[int, Ints, _Order | None] | None = None

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch `number` (from 0), as int64 tensors on the CPU."""
        import torch  # not at the top: `pairs` needs none

        both = torch.from_numpy(self.ids[self.places(number)].astype(np.int64))
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    def places(self, number: int) -> Ints:
        """Where in the ids the tokens of each row of batch `number` are, (B, T + 1)."""
        first = number * self.batch_size
        return np.stack([self.row_places(row) for row in range(first, first + self.batch_size)])

    def row_places(self, row: int) -> Ints:
        """The same for row `row` of all batches, (T + 1,)."""
        epoch, place = divmod(row, self.blocks)
        if self._epoch is None or self._epoch[0] != epoch:
            random = np.random.Generator(np.random.Philox(key=[self.seed % 2**64, epoch]))
            phase = random.integers(0, min(self._slack, self.block_size) + 1)
            starts = random.permutation(self.blocks) * self.block_size + phase
            order = None if self._documents is None else _Order(self._documents, len(self.ids), random)
            self._epoch = epoch, starts, order
        _, starts, order = self._epoch
        places: Ints = starts[place] + np.arange(self.block_size + 1)
        return places if order is None else order.places(places)


def document_starts(ids: Ids, separator: int) -> Ints:
    """Where in the ids each document begins: at 0, and after each `separator`."""
    size = 1 << 22
    ends = [np.flatnonzero(ids[at : at + size] == separator) + at for at in range(0, len(ids), size)]
    starts = np.concatenate([[0], *ends]).astype(np.int64)
    starts[1:] += 1
    return starts[starts < len(ids)]


class _Order:
    """The ids with their documents in a random order."""

    def __init__(self, starts: Ints, count: int, random: np.random.Generator) -> None:
        ends = np.append(starts[1:], count)
        order = np.append(random.permutation(len(starts) - 1), len(starts) - 1)
        self._old = starts[order]  # where each document begins in the ids
        self._new = np.concatenate([[0], np.cumsum((ends - starts)[order])[:-1]])  # and in this order

    def places(self, places: Ints) -> Ints:
        """The places in the ids of the tokens at `places` in this order."""
        document = np.searchsorted(self._new, places, side="right") - 1
        found: Ints = self._old[document] + places - self._new[document]
        return found


def evenly_spaced(ids: Ids, block_size: int, rows: int) -> tuple[Tensor, Tensor]:
    """Up to `rows` evenly spaced rows (x, y) of `ids`, each (rows, block_size), always the same: for the validation
    loss."""
    import torch

    last = len(ids) - 1 - block_size
    starts = np.unique(np.linspace(0, last, rows).astype(np.int64))
    both = torch.from_numpy(ids[starts[:, None] + np.arange(block_size + 1)].astype(np.int64))
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()
