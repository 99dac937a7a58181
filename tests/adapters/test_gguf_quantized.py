"""Quantized GGUF files through llama.cpp: its numbers, its cache, what it is never given, and without the extra.

llama-cpp-python has no wheel on PyPI, so the tests that need it run only where it has been built.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import foreign
import gguf_tiny
import numpy as np
import pytest
import torch
from test_gguf_export import exported, model, vocabulary

from tui_llm.cli import main
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.instruments.attention.question import AttentionQuestion
from tui_llm.instruments.neighbours.question import NeighboursQuestion
from tui_llm.llm.adapters import gguf_quantized, llama_cpp_library
from tui_llm.llm.adapters.gguf_header import GgufInfo, read_gguf
from tui_llm.llm.adapters.gguf_writer import write_gguf
from tui_llm.llm.hub.open_model import open_model, open_without_torch
from tui_llm.llm.predict.window import Window

CPU = torch.device("cpu")
needs_llama_cpp = pytest.mark.skipif(
    not llama_cpp_library.available(), reason="llama-cpp-python is not installed; PyPI has only its source"
)


def quantized(folder: Path, **changes: Any) -> Path:
    """GPT-2's layout in q8_0, of random weights that predict something."""
    torch.manual_seed(5)
    made = model(width=64, context=600, **changes)
    for name, weight in made.weights():
        if "norm" not in name:
            weight.copy_(torch.randn_like(weight) * 0.15)
    write_gguf(made, vocabulary(), folder / "tiny.gguf", "tiny", "q8_0")
    return folder / "tiny.gguf"


def llama_q8(folder: Path, **more: Any) -> Path:
    """transformers' Llama with its matrices in q8_0, by the `gguf` library."""
    import gguf

    made = foreign.make("llama", folder / "llama")
    plain, path = folder / "plain.gguf", folder / "llama.gguf"
    foreign.write_gguf(made, foreign.byte_level(), plain, more=more)
    reader = gguf.GGUFReader(plain)
    writer = gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kinds = (field.types[0], field.types[-1] if len(field.types) > 1 else None)
            writer.add_key_value(field.name, field.contents(), kinds[0], sub_type=kinds[1])
    for tensor in reader.tensors:
        kind = (
            gguf.GGMLQuantizationType.Q8_0
            if tensor.data.ndim == 2 and tensor.data.shape[-1] % 32 == 0
            else gguf.GGMLQuantizationType.F32
        )
        writer.add_tensor(tensor.name, gguf.quants.quantize(np.asarray(tensor.data, np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def divergence(right: np.ndarray, made: np.ndarray) -> float:
    """KL(right ‖ made) of two rows of logits, in nats."""
    p, q = (x.astype(np.float64) - np.logaddexp.reduce(x.astype(np.float64)) for x in (right, made))
    return float((np.exp(p) * (p - q)).sum())


def rows_of(window: Window, ids: list[int]) -> np.ndarray:
    window.feed(ids)
    return np.stack([window.logits(at) for at in range(1, len(ids) + 1)])


# ── without llama.cpp ──


def changed(header: GgufInfo, **settings: Any) -> GgufInfo:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return dataclasses.replace(header, settings={**header.settings, **named})


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"general__architecture": "mamba"}, "architecture mamba"),
        ({"gpt2__block_count": 513}, "gpt2.block_count"),
        ({"gpt2__attention__head_count": 0}, "gpt2.attention.head_count"),
        ({"gpt2__attention__head_count": 5}, "gpt2.attention.head_count"),
        ({"gpt2__attention__head_count_kv": 3}, "gpt2.attention.head_count_kv"),
        ({"gpt2__embedding_length": 128}, "token_embd.weight"),
        ({"gpt2__attention__layer_norm_epsilon": float("nan")}, "gpt2.attention.layer_norm_epsilon"),
        ({"gpt2__rope__scaling__type": "longrope"}, "gpt2.rope.scaling.type"),
        ({"gpt2__expert_count": 8}, "gpt2.expert_count"),
        ({"split__count": 2}, "a file in parts"),
    ],
)
def test_what_llama_cpp_could_fail_on_it_is_not_given(settings: dict[str, Any], why: str, tmp_path: Path) -> None:
    header = read_gguf(quantized(tmp_path))
    assert gguf_quantized.unsuitable(header) == ""
    assert gguf_quantized.unsuitable(changed(header, **settings)) == why


def test_tensors_of_other_types_and_shapes_are_not_given(tmp_path: Path) -> None:
    header = read_gguf(quantized(tmp_path))
    for name, change, why in (
        ("blk.0.attn_norm.weight", {"dtype": "Q8_0"}, "blk.0.attn_norm.weight in Q8_0"),
        ("blk.0.attn_qkv.weight", {"dtype": "MXFP4"}, "blk.0.attn_qkv.weight in MXFP4"),
        ("blk.0.attn_qkv.weight", {"shape": (64, 3, 64)}, "blk.0.attn_qkv.weight"),
    ):
        tensors = {**header.tensors, name: dataclasses.replace(header.tensors[name], **change)}
        assert gguf_quantized.unsuitable(dataclasses.replace(header, tensors=tensors)) == why


def test_without_the_extra_it_is_dequantized_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = quantized(tmp_path)
    monkeypatch.setattr(llama_cpp_library, "available", lambda: False)
    weights = PipelineEngine("cpu").open(str(path))
    assert weights.reader == "torch" and "pip install 'tui-llm[llama-cpp]'" in weights.note
    assert open_without_torch(path, "tiny") is None
    exported(tmp_path / "plain.gguf")
    assert PipelineEngine("cpu").open(str(tmp_path / "plain.gguf")).note == ""  # nothing would be faster


# ── with it ──


@needs_llama_cpp
@pytest.mark.parametrize("make", [quantized, llama_q8], ids=["gpt2", "llama"])
def test_logits_are_those_of_the_dequantized_weights(make: Any, tmp_path: Path) -> None:
    """llama.cpp quantizes activations to 8 bits, too; transformers computes in float32 with the same weights."""
    path = make(tmp_path)
    ours, right = open_model(path, "a", CPU), open_model(path, "a", CPU, quantized=False)
    assert (ours.reader, right.reader) == ("llama.cpp", "torch")
    text = "The cat sat on the mat, and the dog looked at 12 of them"
    ids = ours.tokenizer.encode(text)
    assert ids == right.tokenizer.encode(text) and ours.tokenizer.size == right.tokenizer.size
    ids = ids[:40]
    made = rows_of(Window(ours.predictor, ours.tokenizer.size), ids)
    wanted = rows_of(Window(right.predictor, right.tokenizer.size), ids)
    spread = wanted.std(axis=1).mean()
    assert 1e-6 < np.abs(made - wanted).max() < 0.15 * spread
    assert max(map(divergence, wanted, made)) < 2e-3


@needs_llama_cpp
def test_one_text_fed_in_any_order_gives_the_same_logits(tmp_path: Path) -> None:
    """Appended, cut, changed and grown beyond the first size of the KV cache; ids that fit in one batch and more."""
    opened = open_model(quantized(tmp_path), "tiny", CPU)
    ids = opened.tokenizer.encode(gguf_tiny.TEXT)[:400]
    whole = rows_of(Window(opened.predictor, opened.tokenizer.size), ids)
    window = Window(opened.predictor, opened.tokenizer.size)
    window.crop(0)
    for part in (ids[:3], ids[:1], ids[:300], [*ids[:7], 5, 6], ids[:120], ids):
        window.feed(part)
        expected = whole[len(part) - 1] if part == ids[: len(part)] else None
        if expected is not None:
            assert divergence(expected, window.logits()) < 2e-3
    assert window.forwards < 10
    turns = iter([False, True])
    with pytest.raises(Overtaken):
        window.feed([9, *ids], lambda: next(turns))
    assert len(window.ids) == 256  # the first chunk stays
    with pytest.raises(ValueError, match="context"):
        opened.predictor.run([1] * 400)


@needs_llama_cpp
def test_the_cache_grows_with_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp_library, "_ROOM", 256)
    opened = open_model(quantized(tmp_path), "tiny", CPU)
    ids = (opened.tokenizer.encode(gguf_tiny.TEXT) * 2)[:590]
    window = Window(opened.predictor, opened.tokenizer.size)
    for length in (200, 250, 300, 590):
        window.feed(ids[:length])
    grown = window.logits().copy()
    window.feed([])
    window.feed(ids)
    assert divergence(window.logits(), grown) < 2e-3


@needs_llama_cpp
def test_llama_cpp_agrees_on_the_ids(tmp_path: Path) -> None:
    """Ours is the authority: llama.cpp runs without a vocabulary. With one it gives the same ids."""
    library = llama_cpp_library.library()
    path = quantized(tmp_path)
    settings = library.llama_model_default_params()
    settings.vocab_only = True
    made = library.llama_model_load_from_file(str(path).encode(), settings)
    vocabulary = library.llama_model_get_vocab(made)
    ours = open_model(path, "tiny", CPU).tokenizer
    for text in ("The cat sat", gguf_tiny.TEXT, " é🙂\n\n12 x"):
        room = (library.llama_token * 4000)()
        count = library.llama_tokenize(vocabulary, text.encode(), len(text.encode()), room, 4000, False, False)
        assert list(room[:count]) == ours.encode(text)
    library.llama_model_free(made)


@needs_llama_cpp
def test_the_app_says_which_reader_and_what_needs_another(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = quantized(tmp_path)
    engine = PipelineEngine("cpu")
    weights = engine.open(str(path))
    assert (weights.reader, weights.kind, weights.device, weights.note) == ("llama.cpp", "gpt2", "cpu", "")
    assert weights.choices.lines()[0].text == "Q8_0 weights, computed in 8-bit products" and weights.choices.tied
    reading = engine.read(Request(prompt="The cat", top=5))
    assert reading.distribution is not None
    with pytest.raises(UserError, match=r"runs through llama\.cpp"):
        engine.answer(AttentionQuestion(Request(prompt="The cat")))
    found = engine.answer(NeighboursQuestion(Request(), reading.prompt_ids[0]))
    dequantized = open_model(path, "tiny", CPU, quantized=False).predictor.embedding().double()
    row = dequantized[reading.prompt_ids[0]]
    near = found.nearest[0]
    assert near.cosine == pytest.approx(
        float(torch.cosine_similarity(row, dequantized[near.token.id], dim=0)), abs=1e-6
    )
    assert main(["logits", "The cat", "--model", str(path), "--top", "2"]) == 0
    out, err = capfd.readouterr()
    assert "computed by llama.cpp" in out and err == ""  # its log stays away
    assert main(["logits", "The cat", "--model", str(path), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["reader"] == "llama.cpp"


@needs_llama_cpp
def test_it_opens_without_torch_and_silently(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tui_llm.cli import main\n"
        f"code = main(['logits', 'The cat', '--model', {str(quantized(tmp_path))!r}, '--device', 'cpu'])\n"
        "sys.exit(code or ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@needs_llama_cpp
def test_a_changed_byte_ends_no_process(tmp_path: Path) -> None:
    """A value of the header that changed is refused by ours or by llama.cpp: in a process of its own, which lives on."""
    data = quantized(tmp_path).read_bytes()
    files = []
    for key in (b"gpt2.block_count", b"gpt2.context_length", b"gpt2.attention.head_count", b"gpt2.feed_forward_length"):
        at = data.index(key) + len(key) + 4
        for value in (0, 3, 0xFFFFFFFF):
            files.append(tmp_path / f"{len(files)}.gguf")
            files[-1].write_bytes(data[:at] + struct.pack("<I", value) + data[at + 4 :])
    code = (
        "import sys\nfrom pathlib import Path\nfrom tui_llm.common.errors import UserError\n"
        "from tui_llm.llm.adapters.gguf_quantized import open_quantized\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n        made = open_quantized(Path(name), 'tiny')\n        print('note' if isinstance(made, str) else 'open')\n"
        "    except UserError as error:\n        print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.split()) == len(files), done.stderr
