"""Attention weights and logit lens, against the model's own layers and transformers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from tui_llm.common.errors import Overtaken
from tui_llm.llm.model import checkpoint, inside
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig

SHAPES = ((2, 2, 16), (3, 4, 32), (1, 1, 8))


def small(layers: int, heads: int, width: int, seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    model = GPT(GPTConfig(vocabulary=50, context=24, layers=layers, heads=heads, width=width)).eval()
    for parameter in model.parameters():  # nonzero biases, LayerNorm scales other than 1, and non-uniform attention
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def rows(traced: inside.Trace, tokens: int) -> torch.Tensor:
    """Returns the attention (N, H, T, T): every token's row, with zeros at masked positions."""
    pad = torch.nn.functional.pad
    return torch.stack([pad(inside.attention(traced, at), (0, tokens - at - 1)) for at in range(tokens)], dim=2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weights_times_values_equal_the_layers_output(shape: tuple[int, int, int]) -> None:
    model = small(*shape)
    ids = torch.randint(50, (17,)).tolist()
    traced = inside.trace(model, ids)
    weights = rows(traced, len(ids))
    assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-6)
    with torch.inference_mode():
        for layer, block in enumerate(model.blocks):
            x = block.norm1(traced.residuals[layer])
            _, _, values = inside.projections(block.attention, x)
            mixed = (weights[layer] @ values).transpose(0, 1).reshape(len(ids), -1)
            # Small sums of products up to 100: in float32, another order of addition changes them by 1e-5 or more.
            assert torch.allclose(block.attention.out(mixed), block.attention(x[None])[0], atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_and_streams_equal_transformers(shape: tuple[int, int, int], tmp_path: object) -> None:
    layers, heads, width = shape
    torch.manual_seed(layers)
    config = GPT2Config(
        vocab_size=50, n_positions=24, n_layer=layers, n_head=heads, n_embd=width, initializer_range=0.5
    )
    config._attn_implementation = "eager"
    reference = GPT2LMHeadModel(config).eval()
    reference.save_pretrained(tmp_path)
    model = checkpoint.load(tmp_path, torch.device("cpu"))  # type: ignore[arg-type]
    ids = torch.randint(50, (19,))
    with torch.inference_mode():
        theirs = reference(ids[None], output_attentions=True, output_hidden_states=True)
    traced = inside.trace(model, ids.tolist())
    assert torch.allclose(rows(traced, len(ids)), torch.cat(theirs.attentions), atol=1e-5)
    for layer in range(layers):  # transformers' last hidden state already has the final LayerNorm applied
        assert torch.allclose(traced.residuals[layer], theirs.hidden_states[layer][0], atol=1e-4)
    looked = inside.lens(model, traced, 7)
    with torch.inference_mode():
        for layer in range(layers):
            expected = reference.lm_head(reference.transformer.ln_f(theirs.hidden_states[layer][0, 7]))
            assert torch.allclose(looked[layer], expected, atol=1e-3, rtol=1e-4)
    assert torch.allclose(looked[-1], theirs.logits[0, 7], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_lens_ends_in_the_logits_exactly(shape: tuple[int, int, int]) -> None:
    model = small(*shape)
    ids = torch.randint(50, (11,))
    looked = inside.lens(model, inside.trace(model, ids.tolist()), 10)
    with torch.inference_mode():
        assert torch.equal(looked[-1], model(ids[None], last=1)[0, -1])
    assert looked.shape == (shape[0] + 1, 50)


@given(st.lists(st.integers(0, 49), min_size=1, max_size=24), st.integers(0, 23))
@settings(max_examples=25)
def test_any_text_any_token(ids: list[int], at: int) -> None:
    """A token's attention is a distribution over the tokens up to itself, and later tokens do not change it."""
    at %= len(ids)
    model = small(2, 2, 8)
    whole, start = inside.trace(model, ids), inside.trace(model, ids[: at + 1])
    weights = inside.attention(whole, at)
    assert weights.shape == (2, 2, at + 1)
    assert bool((weights >= 0).all()) and torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
    assert torch.allclose(weights, inside.attention(start, at), atol=1e-4)
    assert torch.allclose(inside.lens(model, whole, at), inside.lens(model, start, at), atol=1e-3, rtol=1e-3)


def test_empty_too_long_and_superseded_traces() -> None:
    model = small(2, 2, 8)
    for ids in ([], [1] * 25):
        with pytest.raises(ValueError, match="tokens in a context of 24"):
            inside.trace(model, ids)
    with pytest.raises(Overtaken):
        inside.trace(model, [1, 2], lambda: True)
