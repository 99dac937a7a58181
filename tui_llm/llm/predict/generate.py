"""Text from a model: predict, draw a token, append it, again.

A draw lays a uniform number u on the cumulative distribution, likeliest token first, and takes the token it
falls on. u depends on the seed and the token's number alone, so the same seed, model and settings give the
same text, however it's produced (one token at a time or all at once), and the same u can be tried under
another temperature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.predict.distribution import Processed, process


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) fixed by `seed` and `index`, on every machine and in every version: 53 bits, a
    float's precision, of the SHA-256 of both."""
    digest = hashlib.sha256(f"tui-llm {seed} {index}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One token drawn. `index` is its number, `u` what was laid on the cumulative distribution (None where
    greedy); `probability` is what it was drawn with, `raw_probability` the model's own; `rank` is 1 +
    strictly greater logits; `processed` holds all the candidates."""

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
    """Draws up to `count` tokens after `ids`, numbered from `start`; token number i uses `uniform(seed, i)`.

    next_logits: all ids so far → logits (V,) of the next one; what it caches is its own affair.
    stop: asked before each token. Whether a token such as `<|endoftext|>` ends the text is the caller's to
    say. Raises `UserError` where the logits have no softmax (`distribution.check`).
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
