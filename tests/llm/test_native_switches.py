"""The training step in C with the architecture switches: against autograd in float64, in every layout and shape."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.llm.test_fast import batch, model
from tests.llm.test_fast_step import exact, grads, off
from tests.llm.test_native_training import computing
from tui_llm.llm.model import native_training, switches
from tui_llm.llm.model.flat import FlatParameters
from tui_llm.llm.model.native_plan import BatchShape, StepPlan
from tui_llm.llm.model.native_rms_plan import RMSNormPlan
from tui_llm.llm.model.native_training_step import NativeTrainingStep
from tui_llm.llm.model.shape import GPTConfig

pytestmark = pytest.mark.skipif(native_training.library() is None, reason=native_training.why_not())

SHAPE = GPTConfig(vocabulary=100, context=72, layers=2, heads=4, width=128, inner=80)
ARCHS = (
    "relu2",
    "rope",
    "rope,window=20,gqa=2",
    "rope,window=1,gqa=1,relu2,untied",
    "rope,rmsnorm,gqa=1,untied",
    f"{switches.SETS['modern']},gqa=2",
)


@st.composite
def configs(draw: st.DrawFn) -> tuple[GPTConfig, int]:
    """A config of any layout, with any of the switches that it holds, and a number of tokens."""
    layout = draw(st.sampled_from(switches.LAYOUTS))
    heads, T = draw(st.sampled_from((1, 2, 4, 6))), draw(st.integers(1, 70))
    width = heads * draw(st.sampled_from((16, 32, 48)))
    inner, context = draw(st.sampled_from((16, 80))), draw(st.integers(T, 72))
    # What would change nothing is refused: one key head a head, a window as long as the context.
    useless = {
        switches.ZERO_INIT,
        *([switches.GQA] if heads == 1 else []),
        *([switches.WINDOW] if context == 1 else []),
    }
    chosen = [name for name in layout.holds if name not in useless and draw(st.booleans())]
    numbers = {
        switches.GQA: draw(st.sampled_from([n for n in (1, 2, 3) if heads % n == 0 and n <= max(1, heads // 2)])),
        switches.WINDOW: draw(st.integers(1, max(1, context - 1))),
        switches.SOFTCAP: 2,
    }
    names = [f"{name}={numbers[name]}" if name in numbers else name for name in (*layout.needs, *chosen)]
    base = GPTConfig(
        vocabulary=draw(st.integers(5, 40)), context=context, layers=2, heads=heads, width=width, inner=inner
    )
    return switches.applied(base, ",".join(names)), T


@settings(max_examples=60, deadline=None)
@given(configs(), st.sampled_from((1, 3)))
def test_any_switches_and_shape_are_those_of_autograd(drawn: tuple[GPTConfig, int], threads: int) -> None:
    config, length = drawn
    gpt, (x, y) = model(config), batch(config, length)
    assert NativeTrainingStep.fits(gpt)
    loss, wanted = exact(gpt, x, y)
    with computing(gpt, threads) as step:
        assert step.gradients(x, y, 1.0, first=True) == pytest.approx(loss, rel=1e-5)
        assert off(grads(gpt), wanted) < 1e-5
        assert max(off({n: g}, {n: wanted[n]}) for n, g in grads(gpt).items() if wanted[n].any()) < 1e-4
        step.gradients(x, y, 1.0, first=False)
    assert off({n: g / 2 for n, g in grads(gpt).items()}, wanted) < 1e-5


@pytest.mark.parametrize("arch", ARCHS)
def test_in_bfloat16_its_error_is_at_most_autocasts(arch: str) -> None:
    gpt = model(switches.applied(SHAPE, arch))
    x, y = batch(gpt.config, 67)
    loss, wanted = exact(gpt, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        other = copy.deepcopy(gpt)
        other.loss(x, y).backward()
    step = NativeTrainingStep(gpt, FlatParameters(gpt), torch.bfloat16)
    step.cast()
    assert step.gradients(x, y, 1.0, first=True) == pytest.approx(loss, rel=1e-2)
    assert off(grads(gpt), wanted) < 1.25 * off(grads(other), wanted) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("arch", ARCHS)
def test_the_number_of_threads_changes_no_bit(arch: str, dtype: torch.dtype) -> None:
    """Nor does what was in the buffers. The products that torch computes have one thread."""
    gpt = model(switches.applied(SHAPE, arch))
    x, y = (one.reshape(-1).contiguous() for one in batch(gpt.config, 61))
    flat, library, before = FlatParameters(gpt), native_training.library(), torch.get_num_threads()
    low, kind = flat.weights.to(dtype), RMSNormPlan if gpt.config.rmsnorm else StepPlan
    found = []
    torch.set_num_threads(1)
    try:
        for threads in (1, 2, 3, 7):
            plan = kind(library, gpt, flat, low, BatchShape(3, 61, threads))
            for buffer in (plan.own, plan.room, plan.d_qkv, plan.d_inner, plan.product, plan.g):
                buffer.fill_(torch.nan)
            loss = plan.run(x, y, 1.0, True, None)
            found.append((loss, flat.gradients.clone()))
    finally:
        torch.set_num_threads(before)
    assert all(loss == found[0][0] and torch.equal(made, found[0][1]) for loss, made in found[1:])


def test_a_window_lets_longer_contexts_in() -> None:
    """Its attention weights are stored for the keys within it only."""
    config = dataclasses.replace(switches.applied(SHAPE, "rope"), layers=1, heads=1, width=16, context=1100, window=40)
    gpt = model(config)
    assert NativeTrainingStep.fits(gpt)
    x, y = batch(config, 1090)
    loss, wanted = exact(gpt, x, y)
    step = NativeTrainingStep(gpt, FlatParameters(gpt), torch.float32)
    assert step.gradients(x, y, 1.0, first=True) == pytest.approx(loss, rel=1e-5)
    assert off(grads(gpt), wanted) < 1e-5
    library = native_training.library()
    assert library is not None
    assert library.attention_weights(1090, 40) < library.attention_weights(1090, 1090) / 8


@pytest.mark.parametrize("arch", ["relu2", "rope,relu2", "rope,rmsnorm,relu2"])
def test_what_is_not_finite_stays_so(arch: str) -> None:
    gpt = model(switches.applied(SHAPE, arch))
    with torch.no_grad():
        gpt.blocks[0].mlp.up.weight[0, 0] = torch.nan  # type: ignore[union-attr, index]
    step = NativeTrainingStep(gpt, FlatParameters(gpt), torch.float32)
    assert not torch.isfinite(torch.tensor(step.gradients(*batch(gpt.config, 5), 1.0, first=True)))
