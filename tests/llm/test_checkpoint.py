"""Model folders that are incomplete, truncated, of the wrong shape, or a pickle: one clear line each."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tui_llm.common.errors import UserError
from tui_llm.llm.model import checkpoint, fast_decode
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.model.tensor_shapes import read_header

CONFIG = GPTConfig(vocabulary=40, context=8, layers=1, heads=2, width=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    checkpoint.save(GPT(CONFIG), tmp_path / "model", end_of_text=39)
    return tmp_path / "model"


def edit(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_weights_survive_a_round_trip(folder: Path) -> None:
    loaded = checkpoint.load(folder)
    torch.manual_seed(0)
    for (name, a), (_, b) in zip(loaded.weights(), GPT(CONFIG).weights(), strict=True):
        assert torch.equal(a, b), name
    assert loaded.config == CONFIG


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    model = GPT(CONFIG)
    checkpoint.save(model, tmp_path, dtype=torch.bfloat16)
    loaded = checkpoint.load(tmp_path)
    assert loaded.tokens.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.tokens.weight, model.tokens.weight, atol=1e-3, rtol=1e-2)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model folder"):
        checkpoint.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no config\.json"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, 2000])
def test_truncated_weights(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    assert len(data) > 2000
    path.write_bytes(data[:keep])
    with pytest.raises(UserError, match=r"cut short|damaged|can't be read"):
        checkpoint.load(folder)


def test_a_pickle_is_never_opened(folder: Path, tmp_path: Path) -> None:
    witness = tmp_path / "executed"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (witness,))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="safetensors"):
        checkpoint.load(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytest_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="never opened"):
        checkpoint.load(folder)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_embd": 16}, "different models"),
        ({"vocab_size": 41}, "different models"),
        ({"n_layer": 2}, "no tensor"),
        ({"n_head": 3}, "not a multiple"),
        ({"n_layer": 0}, "n_layer is 0"),
        ({"n_embd": "wide"}, "does not describe"),
        ({"model_type": "llama"}, "not a GPT-2 config"),
        ({"activation_function": "relu"}, "activation"),
        ({"scale_attn_by_inverse_layer_idx": True}, "attention"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000, not an integer"),
        ({"vocab_size": 10**7}, "different models"),
    ],
)
def test_a_config_that_does_not_fit(folder: Path, fields: dict[str, object], message: str) -> None:
    edit(folder, **fields)
    with pytest.raises(UserError, match=message):
        checkpoint.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", '{"model_type": "gpt2"}'])
def test_a_damaged_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError):
        checkpoint.load(folder)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
@pytest.mark.parametrize("inner", ["transformer.", ""])
def test_a_prefix_of_all_names_is_dropped(folder: Path, prefix: str, inner: str) -> None:
    """torch.compile and DistributedDataParallel put one before each name of their state_dict."""
    path = folder / "model.safetensors"
    wanted = checkpoint.load(folder)
    saved = {prefix + inner + name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    save_file(saved, path, metadata={"format": "pt"})
    for (name, a), (_, b) in zip(checkpoint.load(folder).weights(), wanted.weights(), strict=True):
        assert torch.equal(a, b), name
    save_file({**saved, "other": torch.zeros(1)}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="has no tensor wte"):  # not constant: it may mean anything
        checkpoint.load(folder)


def test_the_first_gpt2_folders_have_no_prefix(folder: Path) -> None:
    """OpenAI's own weights on the Hub have no `transformer.` prefix, and causal masks among the tensors."""
    from safetensors.torch import load_file

    tensors = {k.removeprefix("transformer."): v for k, v in load_file(folder / "model.safetensors").items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
    before = checkpoint.load(folder)
    save_file(tensors, folder / "model.safetensors")
    after = checkpoint.load(folder)
    assert torch.equal(before.positions.weight, after.positions.weight)


ABSURD = [10**6, 10**18, 2**63, -1, 0, 1.5, 1.0, True, "12", None, [], float("inf"), float("nan"), 1e300]


@pytest.mark.parametrize("value", ABSURD, ids=repr)
@pytest.mark.parametrize("name", ["n_layer", "n_head", "n_embd", "n_positions", "vocab_size"])
def test_sizes_are_integers_of_a_sane_size(
    name: str, value: object, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder, **{name: value})
    monkeypatch.setattr(checkpoint, "GPT", lambda *_: pytest.fail("built"))
    with pytest.raises(UserError) as caught:
        checkpoint.load(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1, "x", True, None], ids=repr)
def test_epsilon_is_a_number(value: object, folder: Path) -> None:
    edit(folder, layer_norm_epsilon=value)
    with pytest.raises(UserError, match="layer_norm_epsilon is"):
        checkpoint.load(folder)


def test_1e999_in_a_config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"n_layer": 1', '"n_layer": 1e999'))
    with pytest.raises(UserError, match="n_layer is inf"):
        checkpoint.load(folder)


def test_the_shapes_are_those_of_the_model() -> None:
    for config in (CONFIG, GPTConfig(vocabulary=9, context=3, layers=2, heads=1, width=4, inner=5, tied=False)):
        assert list(config.shapes()) == [(name, tuple(p.shape)) for name, p in GPT(config).named_parameters()]


HEADERS = {
    "no shape": {"dtype": "F32", "shape": None, "data_offsets": [0, 4]},
    "a fraction": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]},
    "a truth": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
    "below zero": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]},
    "too few bytes": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]},
    "a gap": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    "beyond": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "another type": {"dtype": "XX", "shape": [1], "data_offsets": [0, 4]},
    "a list": [],
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_does_not_describe_its_file(what: str, tmp_path: Path) -> None:
    text = json.dumps({"x": HEADERS[what]}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4)
    with pytest.raises(UserError, match="not a safetensors file, or is damaged"):
        read_header(path)


def test_overlapping_tensors(tmp_path: Path) -> None:
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    text = json.dumps({"x": one, "y": one}).encode()
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4)
    with pytest.raises(UserError, match="does not begin where"):
        read_header(tmp_path / "x")


def test_too_little_memory_is_reported_with_both_figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "free_bytes", lambda _: 1000)
    monkeypatch.setattr(checkpoint, "GPT", lambda *_: pytest.fail("built"))
    with pytest.raises(UserError, match=r"needs about 0 MB of memory and 0 MB are free"):
        checkpoint.load(folder)


def test_running_out_of_memory_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = (MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory"))  # fmt: skip
    for error in errors:
        monkeypatch.setattr(checkpoint, "GPT", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(UserError, match="not enough memory to open"):
            checkpoint.load(folder)


@pytest.mark.parametrize("tied", [True, False])
def test_int8_read_from_the_file_is_int8_of_the_whole_model(tmp_path: Path, tied: bool) -> None:
    torch.manual_seed(3)
    config = GPTConfig(vocabulary=900, context=16, layers=2, heads=2, width=32, tied=tied)
    checkpoint.save(GPT(config), tmp_path, dtype=torch.bfloat16)
    whole = checkpoint.load(tmp_path)
    fast_decode.prepare(whole, "int8")
    read, _ = checkpoint.load_prepared(tmp_path, "cpu", "int8")
    wanted = dict(whole.named_buffers())
    found = dict(read.named_buffers())
    assert found.keys() == wanted.keys() and len(found) >= 9
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert all(parameter.device.type == "cpu" for parameter in read.parameters())
    x = torch.tensor([[1, 2, 899]])
    assert torch.equal(read(x), whole(x))
    assert type(checkpoint.load_prepared(tmp_path, "cpu", "half")[0].head).__name__ == "Half"
