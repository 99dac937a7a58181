"""Comparing ranks and orders of logits from two computations that agree only up to rounding.

Kernels for different instruction sets (AVX2, AVX-512, NEON) sum float32 products in different orders, and so does the
same kernel for different shapes: with and without a KV cache, one row or many. The last digits of two logits then
differ, and their order is defined only if they are further apart than the sum of their errors.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

WITHIN = 1e-4
"""How far the logits of two computations of one model may be apart: what other tests hold the engine's to, against transformers.
(The shipped model's, up to 19, were up to 2.5e-5 apart between kernels.)"""


def possible_ranks(logits: Tensor, id: int, within: float = WITHIN) -> range:
    """Returns the ranks, from 1, that `id` can have if each logit of `logits` (V,) has an error of up to `within`."""
    own = float(logits[id])
    first = 1 + int((logits > own + 2 * within).sum())
    return range(first, int((logits >= own - 2 * within).sum()) + 1)


def are_likeliest(ids: Sequence[int], logits: Tensor, within: float = WITHIN) -> bool:
    """Whether `ids` can be the top ids of `logits` (V,) in descending order, if each has an error of up to `within`."""
    return len(set(ids)) == len(ids) and all(
        place in possible_ranks(logits, id, within) for place, id in enumerate(ids, 1)
    )
