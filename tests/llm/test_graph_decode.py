"""Single tokens with static shapes, as a CUDA graph has them, computed without the graph; and the padded output head."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tui_llm.llm.model import aligned_head, fast_decode, graph_decode
from tui_llm.llm.model.graph_decode import GraphStep, StaticStep
from tui_llm.llm.model.model import GPT, KVCache
from tui_llm.llm.model.predictor import GPTPredictor
from tui_llm.llm.model.shape import GPTConfig

SHAPE = GPTConfig(97, 24, 2, 3, 48)


def model() -> GPT:
    torch.manual_seed(1)
    made = GPT(SHAPE)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("weights", ["fp32", "half"])
def test_static_shapes_give_the_same_features_and_logits(weights: str) -> None:
    plain = fast_decode.predictor(model(), weights)
    static = fast_decode.FastPredictor(plain.model, steps=False)
    prompt, rest = [5, 4, 3], [2, 1, 0, 96, 95]
    static._cache.values.fill_(float("nan"))  # what memory may hold
    static.run(prompt)
    static.static_step = StaticStep(static.model, static._cache)
    plain.run(prompt)
    for id in rest:
        torch.testing.assert_close(static.run([id]), plain.run([id]), rtol=1e-4, atol=1e-4)
    features = plain.run([7])
    torch.testing.assert_close(static.run([7]), features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(static.head(static._last[0], 90), plain.head(features, 90), rtol=1e-3, atol=1e-3)
    assert static._last is not None and static.head(static._last[0].numpy(), 90).shape == (1, 90)
    other = torch.ones(1, 48)  # not those of the last token: computed
    torch.testing.assert_close(static.head(other, 97), plain.head(other, 97))
    # Cropped, and with a prompt in between.
    for predictor in (static, plain):
        predictor.crop(4)
        predictor.run([9, 8])
    torch.testing.assert_close(static.run([7]), plain.run([7]), rtol=1e-4, atol=1e-4)


def test_a_full_context_is_refused() -> None:
    gpt = model()
    cache = KVCache(gpt.config)
    step = StaticStep(gpt, cache)
    for id in range(24):
        step(id)
    with pytest.raises(ValueError, match="25 tokens in a context of 24"):
        step(1)
    assert cache.length == 24


def test_the_first_tokens_stay_when_a_step_is_made_behind_them() -> None:
    gpt = model()
    ours, plain = GPTPredictor(gpt), GPTPredictor(gpt)
    ours.run([1, 2, 3])
    plain.run([1, 2, 3])
    StaticStep(gpt, ours._cache)
    torch.testing.assert_close(ours.run([4]), plain.run([4]))


def test_a_cpu_has_no_graphs() -> None:
    gpt = model()
    assert not graph_decode.fits(gpt)
    with pytest.raises(RuntimeError, match="for CUDA, not for cpu"):
        GraphStep(gpt, KVCache(gpt.config))
    predictor = fast_decode.predictor(gpt)
    predictor.run([1, 2])
    predictor.run([3])
    assert predictor.static_step is None


@pytest.mark.parametrize("tokens", [3, aligned_head.FEW + 1])
def test_a_padded_head_multiplies_the_same(tokens: int) -> None:
    torch.manual_seed(1)
    plain = GPT(SHAPE)
    padded = copy.deepcopy(plain)
    aligned_head.align(padded)
    assert padded.head.weight is padded.tokens.weight and type(padded.head) is aligned_head.AlignedHead
    x = torch.randn(1, tokens, 48)
    targets = torch.randint(97, (tokens,))
    for one in (plain, padded):
        F.cross_entropy(one.head(x).flatten(0, 1), targets).backward()
    assert padded.head(x).shape == (1, tokens, 97)
    torch.testing.assert_close(padded.head(x), plain.head(x))
    torch.testing.assert_close(padded.head.weight.grad, plain.head.weight.grad)
    other = nn.Linear(3, 5)
    assert type(other) is nn.Linear
