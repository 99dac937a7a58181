"""Autoregressive sampling: predict, sample a token, append it, repeat.

Sampling is by inverse CDF: a uniform number u selects the first token, in descending order of probability, whose
cumulative probability exceeds u. u depends only on the seed and the token's index, so the same seed, model and settings
give the same text whether it is produced one token at a time or all at once, and the same u can be tried at another
temperature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.predict.distribution import Processed, process


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) that depends on `seed` and `index` only, on every machine and in every version: 53 bits (a
    float's precision) of the SHA-256 of both."""
    digest = hashlib.sha256(f"tui-llm {seed} {index}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One sampled token.

    index: its number; u: the uniform number that selected it (None if greedy).
    probability: what it was sampled with; raw_probability: the model's own; rank: 1 + the number of strictly greater
        logits.
    processed: the whole distribution.
    """

    index: int
    id: int
    u: float | None
    probability: float
    raw_probability: float
    rank: int
    processed: Processed


def generate(
    next_logits: Callable[[list[int]], Tensor],
    ids: Sequence[int],
    settings: SamplerSettings,
    *,
    seed: int,
    start: int = 0,
    count: int,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Sample up to `count` tokens after `ids`, numbered from `start`; token number i uses `uniform(seed, i)`.

    next_logits: maps all ids so far to the next token's logits (V,); it may cache between calls.
    stop: checked before each token.

    Does not stop at `<|endoftext|>`; the caller decides. Raises `UserError` if the softmax is undefined
    (`distribution.check`).
    """
    so_far = list(ids)
    for index in range(start, start + count):
        if stop():
            return
        processed = process(next_logits(list(so_far)), settings, so_far)
        u = None if settings.greedy else uniform(seed, index)
        row = processed.row(0 if u is None else processed.place(u))
        so_far.append(row.id)
        yield Step(index, row.id, u, row.probability, row.raw_probability, row.rank, processed)
