"""The conditional entropy of a corpus's bigrams: a lower bound for the loss of any bigram model, which a model with a
longer context should beat.

    H(x_t | x_{t−1}) = −Σ_ab (n_ab / N) ln (n_ab / n_a)        in nats per token

where n_ab is how often b follows a, n_a = Σ_b n_ab and N = Σ_a n_a (Shannon 1948, §6, with frequencies for
probabilities). A table of all pairs would be too large (GPT-2: 2.5 billion), so pairs are sorted and counted for a few
first tokens at a time. Memory is bounded, whatever the size of the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Progress = Callable[[str], None]
CHUNK = 1 << 20  # pairs read at a time
AT_ONCE = 1 << 23  # pairs sorted at a time
TABLE = 1 << 22  # cells of a table of counts
CHUNKS = 256  # maximum number of chunks read, evenly spaced in a longer text


def bigram_entropy(ids: npt.NDArray[np.unsignedinteger], vocabulary: int, progress: Progress = lambda _: None) -> float:
    """The conditional entropy in nats per token, over all pairs of adjacent ids (T,), which may be memory-mapped; 0.0
    if there are none. Of more than 2²⁸ pairs (`CHUNKS` × `CHUNK`), only that many are counted, evenly spaced. Calls
    `progress` once per chunk."""
    starts = range(0, len(ids) - 1, CHUNK)
    looked_at = min(len(starts), CHUNKS)

    def pairs() -> Iterator[tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.unsignedinteger]]]:
        for start in (starts[n * len(starts) // looked_at] for n in range(looked_at)):
            progress("counting which tokens follow which")
            piece = np.asarray(ids[start : start + CHUNK + 1])
            yield piece[:-1], piece[1:]

    before = np.zeros(vocabulary, np.int64)
    for first, _ in pairs():
        before += np.bincount(first, minlength=vocabulary)
    total = int(before.sum())
    if not total:
        return 0.0
    together = 0.0
    for low, high in _ranges(before, vocabulary):
        together += _sum_n_log_n(pairs(), low, high, vocabulary, int(before[low:high].sum()))
    return max(0.0, (_n_log_n(before) - together) / total)


def _ranges(before: npt.NDArray[np.int64], vocabulary: int) -> Iterator[tuple[int, int]]:
    """Ranges [low, high) of first tokens: small enough for a table of counts, or with few enough pairs to sort, or a
    single token."""
    low, waiting = 0, 0
    for token, count in enumerate(before.tolist()):
        if token > low and waiting + count > AT_ONCE and (token + 1 - low) * vocabulary > TABLE:
            yield low, token
            low, waiting = token, 0
        waiting += count
    if waiting:
        yield low, len(before)


def _sum_n_log_n(
    pairs: Iterator[tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.unsignedinteger]]],
    low: int,
    high: int,
    vocabulary: int,
    count: int,
) -> float:
    """Σ n ln n over the counts of the pairs (`count` of them) whose first token is in [low, high)."""
    cells = (high - low) * vocabulary
    table = np.zeros(cells, np.int64) if high - low == 1 or cells <= TABLE else None
    keys = np.empty(0 if table is not None else count, np.uint32 if cells <= 1 << 32 else np.uint64)
    filled = 0
    for first, second in pairs:
        inside = (first >= low) & (first < high)
        key = (first[inside] - low).astype(keys.dtype) * keys.dtype.type(vocabulary) + second[inside]
        if table is not None:
            table += np.bincount(key, minlength=cells)
        else:
            keys[filled : filled + len(key)] = key
            filled += len(key)
    if table is not None:
        return _n_log_n(table)
    keys.sort()
    edges = np.flatnonzero(keys[1:] != keys[:-1])
    return _n_log_n(np.diff(edges, prepend=-1, append=len(keys) - 1))


def _n_log_n(counts: npt.NDArray[np.int64]) -> float:
    some = counts[counts > 1].astype(np.float64)
    return float((some * np.log(some)).sum())
