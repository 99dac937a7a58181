"""gemm.c's products of many rows against float64, within the bounds that its comments state, with AVX-512 and AVX2."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tui_llm.llm.model import native
from tui_llm.llm.model.native_layers import NativeHalf, NativeInt8

pytestmark = pytest.mark.skipif(native.library() is None, reason=native.why_not() or "native.c can't be compiled here")

# Rows, outputs, inputs: less than one tile, tails of each, several tiles deep; 32 inputs share a scale.
SHAPES = [
    (6, 1, 1),
    (6, 32, 32),
    (7, 33, 33),
    (13, 50, 300),
    (40, 17, 1000),
    (64, 96, 768),
    (130, 70, 257),
    (11, 40, 1100),
]
SUMS = 2e-6  # of Σ|w·x|: the rounding of sums in fp32


@pytest.mark.parametrize("wide", [True, False], ids=["AVX-512", "AVX2"])
@pytest.mark.parametrize("rows, outputs, inputs", SHAPES)
def test_products_are_within_their_bounds(
    rows: int, outputs: int, inputs: int, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "uses_avx512", lambda: wide)  # without the instructions gemm.c takes AVX2's
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    x = torch.randn(rows, inputs) * torch.logspace(-3, 3, rows)[:, None]
    x[:, 0] *= 30  # an outlier, as activations have them
    for made, whole in ((NativeHalf(weight, bias), 0.0), (NativeInt8(weight, bias), 1 / 65534)):
        stored = made.rows(slice(None)).double()
        expected = x.double() @ stored.T + bias
        sizes = x.double().abs() @ stored.T.abs() + bias.abs()
        bound = SUMS * sizes + 1.01 * whole * x.abs().amax(1, keepdim=True) * stored.abs().sum(1)
        assert ((made(x) - expected).abs() <= bound).all()


def test_what_is_not_a_number_stays_so_in_its_row() -> None:
    weight = torch.ones(20, 50)
    for made in (NativeHalf(weight), NativeInt8(weight)):
        for bad in (np.nan, np.inf):
            for at in (3, 49):  # the last one is in a tail
                x = torch.ones(8, 50)
                x[2, at] = bad
                finite = made(x).isfinite()
                assert not finite[2].any() and finite[[0, 1, 3, 4, 5, 6, 7]].all()
    assert not NativeInt8(weight)(torch.zeros(8, 50)).any()
