"""gemm.c's products of many rows against float64, within the bounds that its comments state, and prompt.c's prompts;
each with AVX-512 and AVX2."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tui_llm.llm.model import device, fast_decode, native, native_step
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.native_layers import NativeHalf, NativeInt8
from tui_llm.llm.model.shape import GPTConfig

pytestmark = pytest.mark.skipif(native.library() is None, reason=native.why_not())

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


each_width = pytest.mark.parametrize("wide", [True, False], ids=["AVX-512", "AVX2"])


@each_width
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


PROMPTS = {  # the model, and the tokens of each pass: some through `step` or the modules, after a cache
    "odd": (GPTConfig(61, 24, 2, 5, 35, 50), (7, 1, 16)),
    "wide heads": (GPTConfig(61, 40, 1, 1, 160), (40,)),
    "several tiles of keys and queries": (GPTConfig(97, 300, 2, 2, 96), (101, 3, 6, 190)),
}


@each_width
@pytest.mark.parametrize("shape, passes", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("weights, bound, threads", [("fp32", 2e-5, 1), ("half", 5e-3, 3), ("int8", 0.1, 2)])
def test_a_prompt_is_the_model_in_float64(
    shape: GPTConfig, passes: tuple[int, ...], weights: str, bound: float, threads: int, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(native, "uses_avx512", lambda: wide)
    monkeypatch.setattr(device, "_ALL", threads)
    monkeypatch.setattr(device, "_WORTH_THREADS", 0)
    torch.manual_seed(0)
    model = GPT(shape).requires_grad_(False).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    ids = torch.randint(shape.vocabulary, (shape.context,))
    exact = copy.deepcopy(model).double()
    predictor = fast_decode.predictor(model, weights, "native")
    with torch.inference_mode():
        expected = exact.features(ids[None])[0]
        modules = model.features(ids[None])[0]
    assert isinstance(predictor._step, native_step.NativeStep) and predictor._step.takes(passes[0])
    found = torch.cat([torch.as_tensor(predictor.run(part.tolist())) for part in ids.split(list(passes))])
    assert (found - expected).abs().max() < bound * expected.abs().max()
    assert (found - modules).abs().max() < 1e-3 * expected.abs().max()
    with pytest.raises(ValueError, match="in a context of"):
        predictor.run(ids[:6].tolist())
