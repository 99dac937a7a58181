"""The bigram entropy, against a plain count of pairs and closed forms, for any chunk size."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_llm.llm.data import bigrams
from tui_llm.llm.data.bigrams import bigram_entropy


def plainly(ids: list[int]) -> float:
    pairs, before = Counter(pairwise(ids)), Counter(ids[:-1])
    return -math.fsum(n / (len(ids) - 1) * math.log(n / before[a]) for (a, _), n in pairs.items())


@given(
    ids=st.lists(st.integers(0, 9), min_size=2, max_size=60),
    vocabulary=st.sampled_from([10, 257, 50257, 1 << 20]),
    chunk=st.integers(1, 70),
    at_once=st.integers(1, 70),
    table=st.sampled_from([1, 20, 1 << 22]),
)
def test_against_a_plain_count(ids: list[int], vocabulary: int, chunk: int, at_once: int, table: int) -> None:
    dtype = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    # Includes the largest ids: a pair's key must not overflow.
    scattered = [token if token < 5 else vocabulary - 10 + token for token in ids]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bigrams, "CHUNK", chunk)
        patch.setattr(bigrams, "AT_ONCE", at_once)
        patch.setattr(bigrams, "TABLE", table)
        found = bigram_entropy(np.array(scattered, dtype), vocabulary)
    assert found == pytest.approx(plainly(ids), abs=1e-12)


def test_closed_forms() -> None:
    assert bigram_entropy(np.array([], np.uint16), 9) == bigram_entropy(np.array([3], np.uint16), 9) == 0
    # each token determines the next
    assert bigram_entropy(np.array([1, 2, 3] * 99, np.uint16), 9) == pytest.approx(0, abs=1e-12)
    ids = np.random.default_rng(1).integers(0, 16, 400_000).astype(np.uint16)
    assert bigram_entropy(ids, 50257) == pytest.approx(math.log(16), abs=1e-3)  # tokens are independent
    chain = np.cumsum(np.random.default_rng(2).choice(2, 400_000, p=[0.25, 0.75])) % 7  # a step of 1 or 0: H(1/4)
    wanted = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert bigram_entropy(chain.astype(np.uint16), 7) == pytest.approx(wanted, abs=2e-3)


def test_chunks_of_an_endless_text_are_read_from_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigrams, "CHUNK", 10)
    monkeypatch.setattr(bigrams, "CHUNKS", 4)
    told: list[str] = []
    ids = np.random.default_rng(4).integers(0, 3, 1000).astype(np.uint16)
    pairs = [pair for at in (0, 250, 500, 750) for pair in pairwise(ids[at : at + 11].tolist())]
    before = Counter(first for first, _ in pairs)
    wanted = -math.fsum(n / 40 * math.log(n / before[first]) for (first, _), n in Counter(pairs).items())
    assert bigram_entropy(ids, 3, told.append) == pytest.approx(wanted)
    assert len(told) == 8  # four chunks, each read once to count the tokens and once to count the pairs
    assert bigram_entropy(np.array([0, 1, 0, 2] * 10, np.uint16), 3) == pytest.approx(plainly([0, 1, 0, 2] * 10))


def test_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One token is so frequent that its pairs alone exceed the chunk."""
    monkeypatch.setattr(bigrams, "CHUNK", 1 << 12)
    monkeypatch.setattr(bigrams, "AT_ONCE", 1 << 14)
    monkeypatch.setattr(bigrams, "TABLE", 1 << 14)
    rng = np.random.default_rng(3)
    ids = np.where(rng.random(1_000_000) < 0.5, 5, rng.integers(0, 2000, 1_000_000)).astype(np.uint16)
    tracemalloc.start()
    found = bigram_entropy(ids, 2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000, "less than the ids themselves"
    assert found == pytest.approx(plainly(ids.tolist()), abs=1e-9)
