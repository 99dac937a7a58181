"""The fast training implementation against the plain model, in float32 and bf16."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tui_llm.llm.model import fast
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig

SHAPES = [
    (GPTConfig(vocabulary=61, context=16, layers=1, heads=1, width=8), 16),
    (GPTConfig(vocabulary=300, context=40, layers=3, heads=4, width=48, inner=80, epsilon=1e-3), 33),
    (GPTConfig(vocabulary=97, context=20, layers=2, heads=6, width=36, tied=False), 20),
    (GPTConfig(vocabulary=50, context=300, layers=1, heads=2, width=16), 290),  # several blocks of queries
]


def model(config: GPTConfig) -> GPT:
    torch.manual_seed(1)
    made = GPT(config)
    with torch.no_grad():  # initial biases are 0 and scales 1: randomize them, so that errors show
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


def batch(config: GPTConfig, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, config.vocabulary, (3, length + 1), generator=torch.Generator().manual_seed(2))
    return ids[:, :-1], ids[:, 1:]


def gradients(gpt: GPT, loss: Callable[[], torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    gpt.zero_grad()
    value = loss()
    value.backward()
    return float(value.detach()), {n: p.grad.clone() for n, p in gpt.named_parameters() if p.grad is not None}


def errors(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> dict[str, float]:
    assert found.keys() == wanted.keys()
    assert all(g.dtype == torch.float32 for g in found.values())
    return {n: float((found[n].double() - wanted[n]).norm() / wanted[n].double().norm()) for n in wanted}


@pytest.mark.parametrize(("config", "length"), SHAPES)
def test_in_float32_it_equals_the_plain_model(config: GPTConfig, length: int) -> None:
    gpt, (x, y) = model(config), batch(config, length)
    loss, wanted = gradients(gpt, lambda: gpt.loss(x, y))
    got, found = gradients(gpt, lambda: gpt(x, targets=y, products=torch.float32))
    assert got == pytest.approx(loss, rel=1e-6)
    assert max(errors(found, wanted).values()) < 1e-5


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_long_rows_recompute_the_attention_scores(products: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    config, length = SHAPES[1]
    gpt, (x, y) = model(config), batch(config, length)
    loss, wanted = gradients(gpt, lambda: gpt.loss(x, y))
    monkeypatch.setattr(fast, "SHORT", length - 1)
    got, found = gradients(gpt, lambda: gpt(x, targets=y, products=products))
    exact = products == torch.float32
    assert got == pytest.approx(loss, rel=1e-6 if exact else 1e-2)
    assert max(errors(found, wanted).values()) < (1e-5 if exact else 0.1)


@pytest.mark.parametrize(("config", "length"), SHAPES)
def test_in_bfloat16_its_error_is_at_most_autocasts(config: GPTConfig, length: int) -> None:
    gpt, (x, y) = model(config), batch(config, length)
    exact = copy.deepcopy(gpt).double()
    loss = F.cross_entropy(exact(x).flatten(0, 1), y.flatten())
    loss.backward()
    wanted = {n: p.grad for n, p in exact.named_parameters() if p.grad is not None}

    def autocast() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return gpt.loss(x, y)

    def error(which: Callable[[], torch.Tensor]) -> float:
        value, found = gradients(gpt, which)
        assert value == pytest.approx(float(loss.detach()), rel=1e-2)
        errors(found, wanted)  # checks the dtypes
        off = sum(float((found[n] - wanted[n]).square().sum()) for n in wanted)
        return (off / sum(float(g.square().sum()) for g in wanted.values())) ** 0.5

    assert error(lambda: gpt(x, targets=y, products=torch.bfloat16)) < 1.25 * error(autocast) < 0.05


@given(st.integers(1, 9), st.integers(2, 70), st.integers(1, 200), st.floats(0.1, 30))
@settings(deadline=None, max_examples=40)
def test_head_and_loss_in_chunks(rows: int, vocabulary: int, chunk: int, scale: float) -> None:
    torch.manual_seed(rows)
    x, w = torch.randn(rows, 5, requires_grad=True), torch.randn(vocabulary, 5) * scale
    w.requires_grad_()
    y = torch.randint(0, vocabulary, (rows,))
    loss = F.cross_entropy(x @ w.t(), y)
    wanted = torch.autograd.grad(loss * 3, (x, w))
    got = fast.head_loss(x, w, y, torch.float32, chunk=chunk)
    torch.testing.assert_close(got, loss, rtol=1e-5, atol=1e-5)
    # Logits of several hundred have rounding errors near 1e-5, and a row's gradient sums weights of that scale.
    torch.testing.assert_close(torch.autograd.grad(got * 3, (x, w)), wanted, rtol=1e-4, atol=1e-5 * max(1.0, scale))
    with torch.no_grad():
        assert fast.head_loss(x, w, y, torch.float32, chunk=chunk) == got


def test_gradients_of_the_loss_are_fetched_once() -> None:
    x, w = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    loss = fast.head_loss(x, w, torch.tensor([0, 1, 2, 3]), torch.float32)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="fetched already"):
        loss.backward()


def test_the_logits_of_a_whole_batch_are_never_materialized() -> None:
    """Of 512 × 8,192 logits, only one chunk exists at a time."""
    x, w = torch.randn(512, 8, requires_grad=True), torch.randn(8192, 8, requires_grad=True)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor):
                largest = max(largest, made.untyped_storage().nbytes())
            return made

    with Watch():
        fast.head_loss(x, w, torch.zeros(512, dtype=torch.int64), torch.bfloat16, chunk=1 << 16).backward()
    assert largest <= 8192 * 8 * 4  # the weight's gradient


@pytest.mark.parametrize("products", [None, torch.float32])
def test_padding_rows_of_the_embedding_get_no_probability(products: torch.dtype | None) -> None:
    config, length = SHAPES[1]
    gpt, (x, y) = model(config), batch(config, length)
    gpt.used = 290
    x, y = x % 290, y % 290
    with torch.no_grad():
        wanted = F.cross_entropy(gpt(x)[..., :290].flatten(0, 1), y.flatten())
    loss = gpt(x, targets=y, products=products)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=0)
    loss.backward()
    assert gpt.head.weight.grad is not None and not gpt.head.weight.grad[290:].any()


@given(st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=20))
def test_gelu_is_torchs(values: list[float]) -> None:
    u = torch.tensor(values, dtype=torch.float32, requires_grad=True)
    wanted = F.gelu(u, approximate="tanh")
    y, slope = fast._gelu(u.detach())
    torch.testing.assert_close(y, wanted.detach(), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(slope, torch.autograd.grad(wanted.sum(), u)[0], rtol=1e-5, atol=2e-6)
