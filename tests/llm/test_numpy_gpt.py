"""The GPT-2 in numpy against the one in torch, and against transformers'."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tui_llm.common.errors import UserError
from tui_llm.llm.model import checkpoint, numpy_gpt
from tui_llm.llm.model.model import GPT, KVCache
from tui_llm.llm.model.numpy_gpt import NumpyGPT
from tui_llm.llm.model.shape import GPTConfig

NANO = Path(__file__).resolve().parents[2] / "models/nano"

SHAPES = (
    GPTConfig(vocabulary=50, context=24, layers=2, heads=4, width=32),
    GPTConfig(vocabulary=33, context=16, layers=3, heads=1, width=20, inner=44, epsilon=1e-3, tied=False),
    GPTConfig(vocabulary=9, context=1, layers=1, heads=2, width=2),
)


def loaded(folder: Path) -> NumpyGPT:
    model = numpy_gpt.load(folder)
    assert model is not None
    return model


def logits(model: NumpyGPT, ids: list[int], parts: tuple[int, ...] = ()) -> np.ndarray:
    """All positions' logits; the tokens are run in several calls, cut at `parts`."""
    model.crop(0)
    cuts = sorted({0, *parts, len(ids)})
    rows = [model.run(ids[start:stop]) for start, stop in itertools.pairwise(cuts)]
    return model.head(np.concatenate(rows), model.vocabulary)


def assert_equal(one: np.ndarray, other: np.ndarray) -> None:
    """Equal to 1e-5 of the largest logit."""
    assert one.dtype == np.float32 and one.shape == other.shape
    assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


def random_gpt(config: GPTConfig, seed: int = 0) -> GPT:
    """Weights large enough that every part of the model changes the logits."""
    torch.manual_seed(seed)
    model = GPT(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.dim() == 1) * 0.5)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("config", SHAPES)
def test_it_computes_what_torch_does(tmp_path: Path, config: GPTConfig, dtype: torch.dtype) -> None:
    checkpoint.save(random_gpt(config), tmp_path, dtype=dtype)
    reference, model = checkpoint.load(tmp_path), loaded(tmp_path)
    ids = np.random.default_rng(1).integers(config.vocabulary, size=config.context).tolist()
    expected = reference(torch.tensor([ids]))[0].numpy()
    assert_equal(logits(model, ids), expected)
    assert_equal(logits(model, ids, (1, len(ids) // 2)), expected)  # through the KV cache
    assert model.parameters == config.parameters() and model.embedding().shape == (config.vocabulary, config.width)
    for name, parameter in reference.named_parameters():
        assert torch.equal(torch.from_numpy(np.ascontiguousarray(model.weights[name])), parameter), name


def test_nano_predicts_the_same_in_both() -> None:
    reference, model = checkpoint.load(NANO), loaded(NANO)
    ids = np.random.default_rng(2).integers(4096, size=200).tolist()
    expected = reference(torch.tensor([ids]))[0].numpy()
    assert_equal(logits(model, ids), expected)
    assert_equal(logits(model, ids, (64, 65, 190)), expected)
    cache, rows = KVCache(reference.config), []
    for id in ids[:8]:
        rows.append(reference(torch.tensor([[id]]), cache)[0])
    assert_equal(logits(model, ids[:8], tuple(range(1, 8))), torch.cat(rows).numpy())


def test_cropping_forgets_the_rest(tmp_path: Path) -> None:
    checkpoint.save(random_gpt(SHAPES[0]), tmp_path)
    model = loaded(tmp_path)
    logits(model, [1, 2, 3, 4, 5])
    model.crop(2)
    again = model.head(model.run([7, 8]), 50)
    assert_equal(again, logits(model, [1, 2, 7, 8])[2:])
    model.crop(0)
    with pytest.raises(ValueError, match="25 tokens in a context of 24"):
        model.run([0] * 25)


@pytest.mark.parametrize("tied", [True, False])
def test_it_computes_what_transformers_does(tmp_path: Path, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        vocab_size=61, n_positions=20, n_embd=24, n_layer=2, n_head=3, tie_word_embeddings=tied, initializer_range=0.4
    )
    reference = transformers.GPT2LMHeadModel(config).eval()
    reference.save_pretrained(tmp_path)
    ids = [5, 60, 0, 17, 17, 3, 42]
    with torch.inference_mode():
        expected = reference(torch.tensor([ids])).logits[0].numpy()
    assert_equal(logits(loaded(tmp_path), ids), expected)


def test_it_goes_to_torch_as_exact_arrays() -> None:
    reference, model = checkpoint.load(NANO), loaded(NANO)
    taken = checkpoint.from_arrays(model.config, model.weights, "cpu")
    assert taken.head.weight is taken.tokens.weight and not taken.training
    for (name, one), (other_name, other) in zip(taken.named_parameters(), reference.named_parameters(), strict=True):
        assert name == other_name and torch.equal(one, other) and not one.requires_grad


def test_what_is_not_for_it_goes_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_gpt, "MOST_PARAMETERS", 4_000_000)
    assert numpy_gpt.load(NANO) is None and not numpy_gpt.fits(NANO)


def test_the_exact_gelu(tmp_path: Path) -> None:
    model = random_gpt(GPTConfig(vocabulary=9, context=4, layers=2, heads=1, width=4, exact_gelu=True))
    checkpoint.save(model, tmp_path)
    found = loaded(tmp_path)
    assert found.config.exact_gelu and numpy_gpt.fits(tmp_path)
    made = found.head(found.run([3, 1, 8]), 9)
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(made), model(torch.tensor([[3, 1, 8]]))[0], rtol=0, atol=1e-5)


def test_a_damaged_folder_is_told_as_torch_tells_it(tmp_path: Path) -> None:
    checkpoint.save(random_gpt(SHAPES[0]), tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()

    def told() -> str:
        problems = []
        for load in (numpy_gpt.load, checkpoint.load):
            with pytest.raises(UserError) as caught:
                load(tmp_path)
            problems.append(str(caught.value))
        assert problems[0] == problems[1]
        return problems[0]

    weights.write_bytes(whole[:-5])
    assert "get it again" in told()
    save_file({"transformer.wte.weight": np.zeros((50, 32), np.int32)}, weights)
    assert "floating point" in told()
    weights.write_bytes(whole)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_embd": 36}))
    assert "different models" in told()
    weights.unlink()
    assert "no model.safetensors" in told()


def test_weights_that_diverged_give_nan_and_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    model = random_gpt(SHAPES[0])
    model.blocks[0].mlp.up.weight[0, 0] = float("inf")
    checkpoint.save(model, tmp_path)
    assert np.isnan(logits(loaded(tmp_path), [1, 2])).any()
    assert not recwarn.list
