"""The GPT-2 implementation against transformers', on random weights of several shapes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from tui_llm.llm.model import checkpoint, stored_gpt
from tui_llm.llm.model.model import GPT, KVCache
from tui_llm.llm.model.shape import GPTConfig

SHAPES = [
    GPTConfig(vocabulary=61, context=16, layers=1, heads=1, width=8),
    GPTConfig(vocabulary=300, context=32, layers=3, heads=4, width=48),
    GPTConfig(vocabulary=257, context=24, layers=2, heads=2, width=32, inner=40, epsilon=1e-3),
    GPTConfig(vocabulary=97, context=20, layers=2, heads=6, width=36, tied=False),
]


def theirs(config: GPTConfig) -> GPT2LMHeadModel:
    torch.manual_seed(1)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocabulary, n_positions=config.context, n_layer=config.layers, n_head=config.heads,
            n_embd=config.width, n_inner=config.inner or None, layer_norm_epsilon=config.epsilon,
            tie_word_embeddings=config.tied, bos_token_id=0, eos_token_id=0,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():  # initial biases are 0: randomize them, so that errors show
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("config", SHAPES, ids=lambda c: f"L{c.layers}H{c.heads}C{c.width}")
def test_logits_equal_transformers_and_back(config: GPTConfig, tmp_path: Path) -> None:
    reference = theirs(config)
    reference.save_pretrained(tmp_path / "theirs")
    ours = checkpoint.load(tmp_path / "theirs")
    ids = torch.randint(0, config.vocabulary, (2, config.context))
    with torch.no_grad():
        wanted = reference(ids).logits
        torch.testing.assert_close(ours(ids), wanted, atol=1e-4, rtol=0)

    checkpoint.save(ours, tmp_path / "ours", end_of_text=0)
    again = GPT2LMHeadModel.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, wanted, atol=1e-4, rtol=0)
    assert (again.lm_head.weight is again.transformer.wte.weight) == config.tied


def test_loss_equals_transformers() -> None:
    reference = theirs(SHAPES[1])
    ours = GPT(SHAPES[1])
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            key, transposed = stored_gpt.hugging_face_name(name)
            value = reference.state_dict()[f"transformer.{key}"]
            parameter.copy_(value.T if transposed else value)
    ids = torch.randint(0, 300, (3, 17))
    wanted = reference(ids, labels=ids).loss
    torch.testing.assert_close(ours.loss(ids[:, :-1], ids[:, 1:]), wanted, atol=1e-5, rtol=0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
@settings(deadline=None, max_examples=30)
def test_a_cache_changes_nothing(parts: list[int]) -> None:
    """Ids fed at once or in any parts through the KV cache give the same logits."""
    torch.manual_seed(2)
    model = GPT(GPTConfig(vocabulary=50, context=72, layers=2, heads=2, width=16)).eval()
    ids = torch.randint(0, 50, (1, sum(parts)))
    cache, rows, start = KVCache(model.config), [], 0
    with torch.no_grad():
        for size in parts:
            rows.append(model(ids[:, start : start + size], cache))
            start += size
        torch.testing.assert_close(torch.cat(rows, 1), model(ids), atol=1e-4, rtol=0)


def test_cropping_a_cache_forgets_what_came_after() -> None:
    torch.manual_seed(3)
    model = GPT(GPTConfig(vocabulary=50, context=16, layers=2, heads=2, width=16)).eval()
    first, other = torch.randint(0, 50, (2, 1, 10))
    cache = KVCache(model.config)
    with torch.no_grad():
        model(first, cache)
        cache.crop(4)
        got = model(other[:, 4:], cache)
        wanted = model(torch.cat([first[:, :4], other[:, 4:]], 1))[:, 4:]
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


def test_past_the_context_is_an_error() -> None:
    model = GPT(SHAPES[0])
    with pytest.raises(ValueError, match="context of 16"):
        model(torch.zeros(1, 17, dtype=torch.int64))


@pytest.mark.parametrize("config", SHAPES, ids=lambda c: f"L{c.layers}H{c.heads}C{c.width}")
def test_parameters_are_counted_correctly(config: GPTConfig) -> None:
    assert config.parameters() == sum(p.numel() for p in GPT(config).parameters())


def test_published_sizes() -> None:
    """124M and 1.5B parameters, as published (the paper's 117M was a miscount that OpenAI corrected)."""
    assert GPTConfig().parameters() == 124_439_808
    assert GPTConfig(layers=48, heads=25, width=1600).parameters() == 1_557_611_200
    tiny = dataclasses.replace(SHAPES[0], width=4)
    assert tiny.parameters() < 1000


def test_fresh_weights_predict_almost_uniformly() -> None:
    """Before training, the loss is about ln V: the prediction is nearly uniform."""
    torch.manual_seed(4)
    config = GPTConfig(vocabulary=500, context=32, layers=2, heads=2, width=64)
    ids = torch.randint(0, 500, (4, 33))
    loss = float(GPT(config).loss(ids[:, :-1], ids[:, 1:]).detach())
    assert abs(loss - torch.log(torch.tensor(500.0)).item()) < 0.1
