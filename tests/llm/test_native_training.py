"""The training step in C against autograd in float64, torch's own AdamW and clipping, and the step without C."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import pytest
import torch

from tests.llm.test_fast import batch, model
from tests.llm.test_fast_step import exact, grads, off
from tui_llm.llm.model import native_training
from tui_llm.llm.model.fast_step import FastStep
from tui_llm.llm.model.flat import FlatAdamW, FlatParameters
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.native_training_step import NativeTrainingStep
from tui_llm.llm.model.shape import GPTConfig

pytestmark = pytest.mark.skipif(native_training.library() is None, reason=native_training.why_not())

SHAPES = [
    (GPTConfig(vocabulary=61, context=16, layers=1, heads=1, width=16), 16),
    (GPTConfig(vocabulary=300, context=40, layers=3, heads=4, width=64, inner=80, epsilon=1e-3), 33),
    (GPTConfig(vocabulary=97, context=20, layers=2, heads=2, width=96, tied=False), 7),
    (GPTConfig(vocabulary=17, context=120, layers=1, heads=2, width=32), 112),  # several blocks of queries and chunks
]


def made(
    config: GPTConfig, length: int, dtype: torch.dtype
) -> tuple[GPT, NativeTrainingStep, torch.Tensor, torch.Tensor]:
    gpt, (x, y) = model(config), batch(config, length)
    return gpt, NativeTrainingStep(gpt, FlatParameters(gpt), dtype), x.contiguous(), y.contiguous()


@contextlib.contextmanager
def computing(gpt: GPT, threads: int) -> Iterator[NativeTrainingStep]:
    """The step in fp32 on so many threads. The gradients are NaN before it."""
    flat, before = FlatParameters(gpt), torch.get_num_threads()
    flat.gradients.fill_(torch.nan)  # all of it is overwritten, except the gaps
    step = NativeTrainingStep(gpt, flat, torch.float32)
    torch.set_num_threads(threads)
    try:
        step.cast()
        yield step
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize(("config", "length"), SHAPES)
def test_gradients_are_those_of_autograd(config: GPTConfig, length: int, padding: int, threads: int) -> None:
    gpt, (x, y) = model(config), batch(config, length)
    gpt.used = config.vocabulary - padding
    x, y = x % gpt.used, y % gpt.used
    loss, wanted = exact(gpt, x, y)
    with computing(gpt, threads) as step:
        assert step.gradients(x, y, 1.0, first=True) == pytest.approx(loss, rel=1e-6)
        assert off(grads(gpt), wanted) < 1e-6
        assert max(off({n: g}, {n: wanted[n]}) for n, g in grads(gpt).items()) < 5e-6
        parts = slice(0, 1), slice(1, 3)  # other shapes than the batch's
        halves = sum(step.gradients(x[p], y[p], len(x[p]) / len(x), first=p == parts[0]) for p in parts)
    assert halves == pytest.approx(loss, rel=1e-6) and off(grads(gpt), wanted) < 1e-6


@pytest.mark.parametrize(("config", "length"), SHAPES)
def test_in_bfloat16_its_error_is_at_most_autocasts(config: GPTConfig, length: int) -> None:
    gpt, step, x, y = made(config, length, torch.bfloat16)
    loss, wanted = exact(gpt, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        other = copy.deepcopy(gpt)
        other.loss(x, y).backward()
    autocast = off(grads(other), wanted)
    step.cast()
    assert step.gradients(x, y, 1.0, first=True) == pytest.approx(loss, rel=1e-2)
    assert off(grads(gpt), wanted) < 1.25 * autocast < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_steps_give_equal_bits_and_the_blocks_outputs(dtype: torch.dtype) -> None:
    config, length = SHAPES[1]
    found, outputs = [], []
    for _ in range(2):
        gpt, step, x, y = made(config, length, dtype)
        step.cast()
        loss = step.gradients(x, y, 1.0, first=True)
        found.append((loss, step.flat.gradients.clone()))
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])
    kept: list[torch.Tensor] = []
    step.observe = lambda one: kept.append(one.clone())
    assert step.gradients(x, y, 1.0, first=True) == found[0][0] and step.observe is None
    hooks = [b.register_forward_hook(lambda _, __, out: outputs.append(out.flatten(0, 1))) for b in gpt.blocks]
    with torch.no_grad():
        gpt.features(x)
    assert len(kept) == len(outputs) == len(hooks) == config.layers
    for mine, wanted in zip(kept, outputs, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-4 if dtype == torch.float32 else 0.1)


def test_adamw_and_clipping_are_torchs() -> None:
    config, length = SHAPES[1]
    gpt, step, x, y = made(config, length, torch.float32)
    theirs, flat = copy.deepcopy(gpt), step.flat
    assert flat.library is not None
    other = torch.optim.AdamW(theirs.decay_groups(0.3), lr=1e-2, betas=(0.8, 0.95))
    ours = FlatAdamW(flat, 0.3, 1e-2, (0.8, 0.95))
    for number in range(6):
        step.gradients(x, y, 1.0, first=True)
        for (_, mine), (_, their) in zip(gpt.weights(), theirs.weights(), strict=True):
            assert mine.grad is not None
            their.grad = mine.grad.clone()
        for optimizer in (ours, other):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 / (1 + number)
        most = 0.5 if number % 2 else 1e9
        assert flat.clip(most) == pytest.approx(
            float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), most)), rel=1e-5
        )
        ours.step()
        other.step()
        for (name, mine), (_, their) in zip(gpt.weights(), theirs.weights(), strict=True):
            torch.testing.assert_close(mine, their, rtol=1e-5, atol=1e-6, msg=name)
    kept = {f"{n}.{k}": v for (n, p) in theirs.weights() for k, v in other.state[p].items()}
    for name, value in ours.named_state():
        torch.testing.assert_close(value, kept[name], rtol=1e-4, atol=1e-7, msg=name)


def test_what_is_not_finite_stays_so() -> None:
    for bad in (torch.nan, torch.inf):
        gpt, step, x, y = made(*SHAPES[0], torch.float32)
        with torch.no_grad():
            gpt.blocks[0].mlp.up.weight[0, 0] = bad
        assert not torch.isfinite(torch.tensor(step.gradients(x, y, 1.0, first=True)))
        assert not torch.isfinite(torch.tensor(step.flat.clip(1.0)))


def test_other_models_are_left_to_the_step_without_c(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"vocabulary": 11, "context": 4, "layers": 1, "heads": 2, "width": 32}

    def fits(**fields: object) -> bool:
        return NativeTrainingStep.fits(GPT(GPTConfig(**(shape | fields))))  # type: ignore[arg-type]

    assert fits()
    assert not any(fits(**f) for f in ({"width": 40}, {"heads": 4}, {"inner": 72}, {"dropout": 0.1}, {"exact_gelu": True}, {"context": 1025}))  # fmt: skip
    assert FastStep.fits(GPT(GPTConfig(**shape)))  # type: ignore[arg-type]
    monkeypatch.setattr(native_training, "library", lambda: None)
    assert not fits()
