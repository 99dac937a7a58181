"""Ranks and orders of logits that two computations made: they agree but for rounding, which may turn near ties around.

float32 products are summed in another order by other kernels (AVX2, AVX-512, NEON), and by the same ones for another shape:
with and without a KV cache, a row alone or among others. So the last digits of two logits differ, and which of two is greater
is only settled where they are further apart than both can be off.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

WITHIN = 1e-4
"""How far the logits of two computations of one model may be apart: what other tests hold the engine's to, against transformers.
(The shipped model's, up to 19, were up to 2.5e-5 apart between kernels.)"""


def possible_ranks(logits: Tensor, id: int, within: float = WITHIN) -> range:
    """The ranks, from 1, that `id` can have by logits (V,) of which each may be off by `within`. One where no other is near."""
    own = float(logits[id])
    first = 1 + int((logits > own + 2 * within).sum())
    return range(first, int((logits >= own - 2 * within).sum()) + 1)


def are_likeliest(ids: Sequence[int], logits: Tensor, within: float = WITHIN) -> bool:
    """Whether `ids` are the first ids by descending logits (V,), where each of these may be off by `within`."""
    return len(set(ids)) == len(ids) and all(
        place in possible_ranks(logits, id, within) for place, id in enumerate(ids, 1)
    )
