"""Flat parameters and the training step without autograd, against autograd in float64 and torch's own AdamW and clipping."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.llm.test_fast import SHAPES, batch, model
from tui_llm.llm.model.fast_step import FastStep
from tui_llm.llm.model.flat import FlatAdamW, FlatParameters
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig


def exact(gpt: GPT, x: torch.Tensor, y: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and its gradients by autograd in float64."""
    reference = copy.deepcopy(gpt).double()
    loss = reference.loss(x, y)
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in reference.weights() if p.grad is not None}


def grads(gpt: GPT) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in gpt.weights() if p.grad is not None}


def off(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The relative error of all gradients as one vector."""
    assert found.keys() == wanted.keys()
    square = sum(float((found[n].double() - wanted[n]).square().sum()) for n in wanted)
    return (square / sum(float(g.square().sum()) for g in wanted.values())) ** 0.5


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize(("config", "length"), SHAPES)
def test_gradients_are_those_of_autograd(config: GPTConfig, length: int, padding: int) -> None:
    gpt, (x, y) = model(config), batch(config, length)
    gpt.used = config.vocabulary - padding
    x, y = x % gpt.used, y % gpt.used
    loss, wanted = exact(gpt, x, y)
    flat = FlatParameters(gpt)
    step = FastStep(gpt, flat, torch.float32)
    for _ in range(2):  # the second one overwrites the first
        step.cast()
        assert step.gradients(x, y, 1.0, first=True) == pytest.approx(loss, rel=1e-6)
    assert off(grads(gpt), wanted) < 1e-6
    assert max(off({n: g}, {n: wanted[n]}) for n, g in grads(gpt).items()) < 5e-6

    halves = sum(step.gradients(x[rows], y[rows], len(x[rows]) / len(x), first=rows == slice(0, 1)) for rows in (slice(0, 1), slice(1, 3)))  # fmt: skip
    assert halves == pytest.approx(loss, rel=1e-6) and off(grads(gpt), wanted) < 1e-6


@pytest.mark.parametrize(("config", "length"), SHAPES)
def test_in_bfloat16_its_error_is_at_most_autocasts(config: GPTConfig, length: int) -> None:
    gpt, (x, y) = model(config), batch(config, length)
    loss, wanted = exact(gpt, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        gpt.loss(x, y).backward()
    autocast = off(grads(gpt), wanted)
    flat = FlatParameters(gpt)
    step = FastStep(gpt, flat, torch.bfloat16)
    step.cast()
    assert step.gradients(x, y, 1.0, first=True) == pytest.approx(loss, rel=1e-2)
    assert off(grads(gpt), wanted) < 1.25 * autocast < 0.05


def test_flat_adamw_and_clipping_are_torchs() -> None:
    config, length = SHAPES[1]
    gpt, (x, y) = model(config), batch(config, length)
    theirs = copy.deepcopy(gpt)
    options = {"lr": 1e-2, "betas": (0.8, 0.95)}
    other = torch.optim.AdamW(theirs.decay_groups(0.3), **options)
    flat = FlatParameters(gpt)
    ours = FlatAdamW(flat, 0.3, 1e-2, (0.8, 0.95))
    for number in range(6):
        theirs.zero_grad(set_to_none=True)
        theirs.loss(x, y).backward()
        for (_, mine), (_, their) in zip(gpt.weights(), theirs.weights(), strict=True):
            assert their.grad is not None
            mine.grad = their.grad.clone()  # a tensor of its own, as autograd makes it
        flat.collect()
        most = 0.5 if number % 2 else 1e9
        assert flat.clip(most) == pytest.approx(
            float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), most)), rel=1e-5
        )
        ours.step()
        other.step()
    pairs = list(zip(gpt.weights(), theirs.weights(), strict=True))
    for (name, mine), (_, their) in pairs:
        torch.testing.assert_close(mine, their, rtol=1e-4, atol=1e-5, msg=name)
        assert mine.grad is not None and mine.untyped_storage().data_ptr() == flat.weights.untyped_storage().data_ptr()

    # Both give and take the same state: a checkpoint of one continues in the other.
    kept = {f"{n}.{k}": v.clone() for (n, p) in theirs.weights() for k, v in other.state[p].items()}
    assert {n: v.shape for n, v in ours.named_state()} == {n: v.shape for n, v in kept.items()}
    ours.load_named_state(kept)
    assert all(torch.equal(v, kept[n]) for n, v in ours.named_state())
    gaps = flat.weights.clone()
    for name in flat.names:
        flat.view(gaps, name).zero_()
    assert not gaps.any()


def test_models_that_it_can_not_train_are_left_to_autograd() -> None:
    shape = {"vocabulary": 11, "context": 4, "layers": 1, "heads": 1, "width": 8}
    assert FastStep.fits(GPT(GPTConfig(**shape))) and FlatParameters.fits(GPT(GPTConfig(**shape)))
    assert not FastStep.fits(GPT(GPTConfig(**shape, exact_gelu=True)))
    assert not FastStep.fits(GPT(GPTConfig(**shape, dropout=0.1)))
    frozen = GPT(GPTConfig(**shape))
    frozen.positions.weight.requires_grad_(False)
    assert not FlatParameters.fits(frozen)
