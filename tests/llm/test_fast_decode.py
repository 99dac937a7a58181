"""Weights laid out for decoding: equal logits in fp32, close ones in half and int8; and their memory."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.recipe import Recipe
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.attention.question import AttentionQuestion
from tui_llm.instruments.learn.question import LearnQuestion
from tui_llm.instruments.lens.question import LensQuestion
from tui_llm.instruments.neighbours.question import NeighboursQuestion
from tui_llm.llm.hub import lookup
from tui_llm.llm.model import checkpoint, fast_decode, kernels, linear_layers
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.predictor import GPTPredictor
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.model.weight_names import WEIGHTS
from tui_llm.llm.predict.window import Window

TEXT = "Once upon a time, there was a little girl named Lily. She liked to play in the park with her red ball."
NANO = lookup.find("nano").folder


def logits(predictor: GPTPredictor, ids: list[int], parts: tuple[int, ...]) -> Tensor:
    """Returns logits (T, V), with the ids fed in parts of these sizes, then one by one."""
    rows, at = [], 0
    for size in (*parts, *[1] * len(ids)):
        if at < len(ids):
            rows.append(predictor.run(ids[at : at + size]))
            at += size
    return predictor.head(torch.cat(rows), predictor.vocabulary)


@pytest.fixture(scope="module")
def ids() -> list[int]:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine.ids(Request(prompt=TEXT))


@pytest.fixture(scope="module")
def plain(ids: list[int]) -> Tensor:
    with torch.inference_mode():
        made: Tensor = checkpoint.load(NANO)(torch.tensor([ids]))[0]
    return made


@pytest.mark.parametrize(("weights", "within"), [("fp32", 1e-4), ("half", 2e-2)])
@pytest.mark.parametrize("parts", [(), (3, 1, 4, 2), (100,)])
def test_nano_gives_the_same_logits_in_fp32(
    ids: list[int], plain: Tensor, weights: str, within: float, parts: tuple[int, ...]
) -> None:
    found = logits(fast_decode.predictor(checkpoint.load(NANO), weights), ids, parts)
    assert (found - plain).abs().max() < within
    best = plain.gather(-1, found.argmax(-1, keepdim=True))[:, 0]
    assert (plain.amax(-1) - best).max() < 2 * within  # the order of closer ones may differ


def test_half_weights_choose_the_same_tokens_in_nanos_text(ids: list[int]) -> None:
    """Compares token by token; if two logits are closer than half precision's error (0.02), either may win."""
    exact, half = (Window(fast_decode.predictor(checkpoint.load(NANO), weights), 4096) for weights in ("fp32", "half"))
    made, clear = list(ids), 0
    for _ in range(30):
        exact.feed(made)
        half.feed(made)
        (first, second), best = torch.from_numpy(exact.logits()).topk(2)
        if first - second > 0.02:
            assert int(half.logits().argmax()) == int(best[0])
            clear += 1
        made.append(int(best[0]))
    assert clear > 25


def test_int8_is_close_but_not_equal_and_independent_of_how_the_text_was_entered(ids: list[int], plain: Tensor) -> None:
    found = logits(fast_decode.predictor(checkpoint.load(NANO), "int8"), ids, (7, 5))
    error = (found - plain).pow(2).mean().sqrt() / plain.std()
    assert 1e-4 < error < 0.03
    at_once = logits(fast_decode.predictor(checkpoint.load(NANO), "int8"), ids, (len(ids),))
    assert (found - at_once).abs().max() < 1e-3


@pytest.mark.parametrize("outputs", [30, 384, 1000])
@pytest.mark.parametrize("tokens", [1, 3, 9])
def test_int8_products_equal_those_of_the_rounded_weights(outputs: int, tokens: int) -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(outputs, 16) - 90, torch.randn(outputs), torch.randn(tokens, 16) * 3
    layer = linear_layers.Int8(weight, bias)
    rows = layer.rows(slice(None))
    torch.testing.assert_close(layer(x), x @ rows.T + bias, rtol=1e-5, atol=1e-2)
    assert (rows - weight).abs().max() <= (weight.max() - weight.min()) / 255 / 2 + 1e-4
    ids = torch.tensor([[outputs - 1, 0, 7]])
    torch.testing.assert_close(layer.rows(ids), rows[ids])


def test_a_large_common_offset_of_the_logits_costs_half_no_digits() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(500, 64) * 0.05, torch.randn(1, 64)
    weight += -90 * x / x.square().sum()  # shifts all logits to about −90, as in GPT-2
    exact = x @ weight.T
    assert exact.mean() < -80
    assert (linear_layers.Half(weight, centre=True)(x) - exact).abs().max() < 2e-2
    assert (linear_layers.Half(weight)(x) - exact).abs().max() > 2e-2  # without centring, the error is larger


@pytest.mark.parametrize("kernel", kernels.of("int8").values(), ids=lambda kernel: kernel.name)
def test_int8_of_a_large_vocabulary_never_holds_it_in_fp32(kernel: kernels.Kernel) -> None:
    if problem := kernels._problem(kernel, None):
        pytest.skip(problem)
    torch.manual_seed(0)
    whole = torch.randn(100_000, 64) - 3

    class Stored:
        shape, most = whole.shape, 0

        def __getitem__(self, rows: slice) -> Tensor:
            found = whole[rows]
            self.most = max(self.most, found.numel())
            return found

    stored = Stored()
    table, x = kernel.table(stored), torch.randn(3, 64)
    assert stored.most <= linear_layers.AT_ONCE < whole.numel()
    assert (table(x) - x @ whole.T).abs().mean() < 0.1
    torch.testing.assert_close(table(x), kernel.table(whole)(x))


def test_fp32_keeps_gradients() -> None:
    torch.manual_seed(1)
    model = GPT(GPTConfig(40, 16, 2, 2, 8)).eval()
    fast_decode.prepare(model, "fp32")
    ids = torch.arange(9)[None]
    model(ids).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.matrices())
    with torch.no_grad():
        quick = model(ids)
    torch.testing.assert_close(quick, model(ids), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_a_faster_model_takes_no_memory_and_can_be_saved(tmp_path: Path, tied: bool) -> None:
    torch.manual_seed(1)
    model = GPT(GPTConfig(40, 16, 2, 2, 8, tied=tied)).eval().requires_grad_(False)
    before, size = copy.deepcopy(model), sum(p.numel() for p in model.parameters())
    fast_decode.prepare(model, "fp32")
    assert sum(p.numel() for p in model.parameters()) == size
    assert (model.head.weight is model.tokens.weight) == tied
    for old, new in zip(before.parameters(), model.parameters(), strict=True):
        assert torch.equal(old, new)
    checkpoint.save(model, tmp_path)
    again = checkpoint.load(tmp_path)
    assert all(torch.equal(old, new) for old, new in zip(before.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(("weights", "share"), [("half", 0.56), ("int8", 0.31)])
def test_half_and_int8_weights_take_fewer_bytes(weights: str, share: float) -> None:
    torch.manual_seed(1)
    model = GPT(GPTConfig(4096, 16, 2, 2, 64)).eval().requires_grad_(False)
    whole = sum(p.numel() * 4 for p in model.parameters())
    fast_decode.prepare(model, weights)
    kept = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    assert sum(kept.values()) < share * whole


def test_weights_beyond_16_bits_are_refused() -> None:
    model = GPT(GPTConfig(20, 8, 1, 1, 4)).requires_grad_(False)
    model.head.weight[3, 1] = 1e6
    with pytest.raises(UserError, match="--weights fp32"):
        fast_decode.prepare(model, "half")


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_engine_says_which_weights_it_reads_with(weights: str) -> None:
    engine = PipelineEngine("cpu", weights)
    engine.open("nano")
    request = Request(prompt=TEXT, target=Target(text=" It"), scores=True)
    reading = engine.read(request)
    assert reading.weights.dtype == weights and reading.distribution is not None and reading.loss is not None
    engine.answer(AttentionQuestion(request))
    lens = engine.answer(LensQuestion(request))
    assert lens.weights.dtype == weights
    near = engine.answer(NeighboursQuestion(request, id=300))
    assert near.weights.dtype == weights
    learning = LearnQuestion(request, 1, Recipe("sgd", 1e-3))
    if weights == "fp32":
        engine.answer(learning)
    else:
        with pytest.raises(UserError, match="--weights fp32"):
            engine.answer(learning)


def test_other_names_are_refused() -> None:
    with pytest.raises(UserError, match="fp32, half, int8"):
        PipelineEngine("cpu", "fp8")
