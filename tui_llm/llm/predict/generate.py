"""Autoregressive sampling: predict, sample a token, append it, repeat.

Sampling is by inverse CDF: a uniform number u selects the first token, in descending order of probability, whose
cumulative probability exceeds u. u depends only on the seed and the token's index, so the same seed, model and settings
give the same text whether it is produced one token at a time or all at once, and the same u can be tried at another
temperature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.predict.distribution import BytesOf, process
from tui_llm.llm.tokens.token_bytes import TextStream


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) that depends on `seed` and `index` only, on every machine and in every version: 53 bits (a
    float's precision) of the SHA-256 of both."""
    digest = hashlib.sha256(f"tui-llm {seed} {index}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def generate(
    next_logits: Callable[[list[int]], Any],
    ids: Sequence[int],
    settings: SamplerSettings,
    *,
    seed: int,
    start: int = 0,
    count: int,
    stop: Callable[[], bool] = lambda: False,
    bytes_of: BytesOf,
    bytes_after: Callable[[Sequence[int]], BytesOf] | None = None,
    before: bytes = b"",
    candidates: int = 0,
    ends: Callable[[int], bool] = lambda id: False,
) -> Iterator[GeneratedToken]:
    """Sample up to `count` tokens after `ids`, numbered from `start`; token number i uses `uniform(seed, i)`.

    next_logits: maps all ids so far to the next token's logits (V,); it may cache between calls.
    stop: checked before each token.
    bytes_of: a token's bytes; bytes_after: that function for the ids so far, if it depends on them; before: the bytes of tokens generated earlier, the last of which may be an incomplete
        character.
    candidates: number of the most probable tokens to record with each step.
    ends: whether an id is an end-of-text token. Generation does not stop there; the caller decides.

    Raises `UserError` if the softmax is undefined (`softmax.check`).
    """
    so_far, stream = list(ids), TextStream()
    stream.feed(before)
    for index in range(start, start + count):
        if stop():
            return
        processed = process(next_logits(list(so_far)), settings, so_far)
        u = None if settings.greedy else uniform(seed, index)
        row = processed.row(
            0 if u is None else processed.place(u), bytes_of if bytes_after is None else bytes_after(so_far)
        )
        so_far.append(row.id)
        yield GeneratedToken(
            index=index,
            id=row.id,
            bytes=row.bytes,
            text=stream.feed(row.bytes),
            u=u,
            probability=row.probability,
            raw_probability=row.raw_probability,
            rank=row.rank,
            candidates=processed.rows(candidates, bytes_of),
            sampler=settings,
            seed=seed,
            kept=processed.kept_count,
            ends=ends(row.id),
        )
