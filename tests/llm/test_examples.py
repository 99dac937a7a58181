"""Training examples: a sequence is its own labels; batches contain every token once per epoch and need no state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tui_llm.llm.data.examples import Batches, evenly_spaced, pairs


def test_n_tokens_make_n_less_one_pairs() -> None:
    assert list(pairs([7, 8, 9])) == [((7,), 8), ((7, 8), 9)]
    assert list(pairs([7])) == list(pairs([])) == []


sizes = st.tuples(st.integers(1, 12), st.integers(0, 100)).map(lambda p: (p[0], p[0] + 1 + p[1]))  # (block, ids)


@given(sizes, st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_an_epoch_deals_every_block_once(size: tuple[int, int], batch_size: int, seed: int) -> None:
    block, length = size
    ids = np.arange(length, dtype=np.uint16)  # each id is its position
    batches = Batches(ids, block, batch_size, seed)
    rows = []
    for number in range(-(-2 * batches.blocks // batch_size)):
        x, y = batches.batch(number)
        assert x.shape == y.shape == (batch_size, block) and x.dtype == y.dtype == torch.int64
        assert torch.equal(y, x + 1)  # the next token
        assert torch.equal(x, x[:, :1] + torch.arange(block)) and x.min() >= 0 and y.max() < length
        rows += x[:, 0].tolist()
    for epoch in (0, 1):
        starts = sorted(rows[epoch * batches.blocks : (epoch + 1) * batches.blocks])
        assert np.diff(starts).tolist() == [block] * (batches.blocks - 1)  # adjacent blocks, none repeated
        missed = length - 1 - batches.blocks * block
        assert missed < 2 * block  # nearly all tokens are used, for any length


@given(sizes, st.integers(1, 5), st.integers(0, 100), st.integers(0, 50))
def test_a_batch_is_fixed_by_its_number(size: tuple[int, int], batch_size: int, seed: int, number: int) -> None:
    block, length = size
    ids = np.arange(length, dtype=np.uint32)
    straight = Batches(ids, block, batch_size, seed)
    for before in range(number):
        straight.batch(before)
    fresh = Batches(ids, block, batch_size, seed)
    assert all(torch.equal(a, b) for a, b in zip(straight.batch(number), fresh.batch(number), strict=True))


def test_the_order_changes_with_the_seed_and_the_epoch() -> None:
    ids = np.arange(1001, dtype=np.uint16)
    one, two = Batches(ids, 10, 99, 1), Batches(ids, 10, 99, 2)
    orders = [tuple(b.batch(n)[0][:, 0].tolist()) for b in (one, two) for n in (0, 1)]
    assert len(set(orders)) == 4 and all(order != tuple(sorted(order)) for order in orders)
    first_tokens = {min(one.batch(n)[0][:, 0].tolist()) for n in range(40)}
    assert first_tokens == set(range(11))  # every offset occurs, so that block boundaries vary


def test_too_few_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        Batches(np.arange(8, dtype=np.uint16), 8, 1, 1)


@given(sizes, st.integers(1, 40))
def test_validation_rows_are_spread_and_always_the_same(size: tuple[int, int], rows: int) -> None:
    block, length = size
    ids = np.arange(length, dtype=np.uint16)
    x, y = evenly_spaced(ids, block, rows)
    assert torch.equal(y, x + 1) and x.shape[1] == block and 1 <= len(x) <= rows
    starts = x[:, 0].tolist()
    assert starts == sorted(set(starts)) and starts[0] == 0
    if rows > 1 and length > block + 1:
        assert int(y[-1, -1]) == length - 1  # up to the last token
        gaps = np.diff(starts)
        assert gaps.max() - gaps.min() <= 1
    assert torch.equal(evenly_spaced(ids, block, rows)[0], x)
