"""Checkpoints of nanoGPT, llm.c, llama2.c and nanochat: the logits of the programs' own code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import published
import pytest
import torch

from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.llm.formats import archive, llm_c, nanogpt, scored_bpe
from tui_llm.llm.hub.lookup import find
from tui_llm.llm.hub.model_list import describe
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.tensor_shapes import TensorInfo

CPU = torch.device("cpu")


def close(made: torch.Tensor, wanted: tuple[list[float], list[float]]) -> None:
    """`made` (T, V); the listed logits have six decimals."""
    for row, listed in zip(published.ROWS, wanted, strict=True):
        torch.testing.assert_close(made[row, : len(listed)], torch.tensor(listed), atol=3e-6, rtol=0)


def gpt_logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([published.IDS]))[0]
    return logits


def characters(folder: Path, count: int = 12) -> None:
    (folder / "vocab.json").write_text(json.dumps({chr(97 + id): id for id in range(count)}))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ── nanoGPT ──


@pytest.mark.parametrize(("biases", "prefix"), [(True, ""), (False, "_orig_mod."), (True, "module.")])
def test_nanogpt(biases: bool, prefix: str, tmp_path: Path) -> None:
    model, note = nanogpt.load(published.nanogpt(tmp_path / "ckpt.pt", biases=biases, prefix=prefix))
    assert model.config.tied and model.config.exact_gelu and "exact GELU" in note and "step 2,000" in note
    assert ("without biases" in note) is not biases
    close(gpt_logits(model), published.NANOGPT[biases])


def test_nanogpt_with_a_head_of_its_own(tmp_path: Path) -> None:
    head = published.values("another", (published.VOCABULARY, published.C))
    path = published.nanogpt(tmp_path / "ckpt.pt", more={"lm_head.weight": head})
    model, note = nanogpt.load(path)
    assert not model.config.tied and torch.equal(model.head.weight, head) and "both are kept" in note


def test_nanogpt_before_2023_has_the_gelu_with_tanh(tmp_path: Path) -> None:
    path = published.nanogpt(tmp_path / "ckpt.pt")
    raw = torch.load(path, weights_only=True)
    del raw["model_args"]["bias"]
    mask = torch.ones(1, 1, 8, 8).tril()
    raw["model"] |= {"transformer.h.0.attn.bias": mask, "transformer.h.1.attn.bias": mask}
    torch.save(raw, path)
    model, note = nanogpt.load(path)
    assert "GELU with tanh" in note
    close(gpt_logits(model), published.LLM_C[3])  # the same weights in llm.c, which has that GELU


def test_nanogpt_in_the_engine(tmp_path: Path) -> None:
    published.nanogpt(tmp_path / "ckpt.pt")
    characters(tmp_path)
    engine = PipelineEngine("cpu")
    assert find(str(tmp_path / "ckpt.pt")).folder == find(str(tmp_path)).folder == (tmp_path / "ckpt.pt").resolve()
    weights = engine.open(str(tmp_path))
    assert weights.vocabulary == 12 and weights.kind == "gpt2"
    assert "nanoGPT" in weights.note and "vocab.json" in weights.note
    prompt = "".join(chr(97 + id) for id in published.IDS)
    reading = engine.read(Request(prompt=prompt))
    best = reading.distribution.candidates[0]
    listed = published.NANOGPT[True][0]
    assert best.id == max(range(12), key=listed.__getitem__)
    assert best.logit == pytest.approx(max(listed), abs=3e-6)
    with pytest.raises(UserError, match="has no character 'Z'"):
        engine.read(Request(prompt="Z"))


def test_one_token_at_a_time_and_training_use_the_exact_gelu_too(tmp_path: Path) -> None:
    from tui_llm.llm.model import fast_decode

    model, _ = nanogpt.load(published.nanogpt(tmp_path / "ckpt.pt"))
    predictor = fast_decode.predictor(model, "fp32")
    rows = [predictor.head(predictor.run([id]), 12)[0] for id in published.IDS]
    close(torch.stack(rows), published.NANOGPT[True])
    ids = torch.tensor([published.IDS])
    exact = model.features(ids)
    torch.testing.assert_close(model.features(ids, products=torch.float32), exact)
    checkpoint.save(model, tmp_path / "saved")
    close(gpt_logits(checkpoint.load(tmp_path / "saved")), published.NANOGPT[True])
    library = pytest.importorskip("transformers")
    theirs = library.GPT2LMHeadModel.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        close(theirs(torch.tensor([published.IDS])).logits[0], published.NANOGPT[True])


# ── llm.c ──


@pytest.mark.parametrize("version", [3, 5])
def test_llm_c(version: int, tmp_path: Path) -> None:
    path = published.llm_c(tmp_path / "gpt2_tiny.bin", version)
    assert sha256(path) == published.HASHES["llm.c", version]  # the file that llm.c writes
    model, note = llm_c.load(path)
    assert model.config.vocabulary == 12 and "116 padding rows" in note and f"version {version}" in note
    close(gpt_logits(model), published.LLM_C[version])
    info = describe(find(str(path)))
    assert (info.parameters, info.context, info.vocabulary, info.problem) == (model.config.parameters(), 8, 12, None)


def test_llm_c_in_a_folder(tmp_path: Path) -> None:
    published.llm_c(tmp_path / "gpt2_tiny.bin")
    (tmp_path / "gpt2_tokenizer.bin").write_bytes(b"\0" * 2000)
    characters(tmp_path)
    weights = PipelineEngine("cpu").open(str(tmp_path))
    assert "llm.c" in weights.note and weights.context == 8


def test_the_gpt2_vocabulary_is_taken_for_its_number_of_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tui_llm.llm.formats import vocabulary
    from tui_llm.llm.tokens.tokenizer import byte_level

    monkeypatch.setattr(vocabulary, "load_named", lambda name: byte_level())
    _, note = vocabulary.load(tmp_path / "ckpt.pt", "nanoGPT", "x", 50257)
    assert note == "the vocabulary gpt2"
    _, note = vocabulary.load(tmp_path / "ckpt.pt", "nanoGPT", "x", 50304)
    assert "the 47 rows after its 50,257 tokens left out" in note


# ── llama2.c ──


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("shared", [True, False])
def test_llama2_c(version: int, shared: bool, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tui_llm.llm.formats import llama2_c

    path = published.llama2_c(tmp_path / "stories.bin", version, shared)
    if version == 1:
        assert sha256(path) == published.HASHES["llama2.c", shared]  # the file that llama2.c writes
    predictor, note = llama2_c.load(path, "stories", CPU)
    assert f"version {version}" in note
    close(predictor.head(predictor.run(published.IDS), 12), published.LLAMA2_C[shared])
    info = describe(find(str(path)))
    assert (info.parameters, info.context, info.vocabulary) == (predictor.parameters, 8, 12)


def test_llama2_c_in_the_engine(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    size = len(published.pieces())
    path = published.llama2_c(tmp_path / "stories.bin", 0, vocabulary=size)
    published.tokenizer_bin(tmp_path / "tokenizer.bin")
    engine = PipelineEngine("cpu")
    weights = engine.open(str(path))
    assert (weights.kind, weights.vocabulary) == ("llama", size)
    assert "tokenizer.bin" in weights.note and "rotary base" in weights.note
    reading = engine.read(Request(prompt="the th"))
    assert [token.id for token in reading.tokens.tokens] == published.SCORED["the thing and all"][:3]


def test_ids_of_tokenizer_bin_are_those_of_run_c(tmp_path: Path) -> None:
    vocabulary = scored_bpe.load(
        published.tokenizer_bin(tmp_path / "tokenizer.bin"), "stories", len(published.pieces())
    )
    for text, ids in published.SCORED.items():
        assert vocabulary.encode(text) == ids
        assert vocabulary.decode(ids) == " " + text
    assert vocabulary.encode("") == [] and vocabulary.encode_after("the") == [282, 260]
    assert vocabulary.start == 1 and vocabulary.starts and vocabulary.ends(2) and vocabulary.is_special(0)


def test_a_tokenizer_bin_of_another_size_is_refused(tmp_path: Path) -> None:
    path = published.tokenizer_bin(tmp_path / "tokenizer.bin")
    for size in (300, 400):
        with pytest.raises(UserError, match="different models"):
            scored_bpe.load(path, "x", size)
    data = path.read_bytes()
    for cut in (0, 3, 9, 15, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(UserError):
            scored_bpe.load(path, "x", len(published.pieces()))


# ── nanochat ──


@pytest.mark.parametrize(("kv_heads", "prefix"), [(4, ""), (2, "_orig_mod.")])
def test_nanochat(kv_heads: int, prefix: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tui_llm.llm.formats import nanochat

    path = published.nanochat(tmp_path, kv_heads, prefix=prefix)
    predictor, note = nanochat.load(path, "d2", CPU)
    assert "October 2025" in note and predictor.vocabulary == 60
    close(predictor.head(predictor.run(published.IDS), 60), published.NANOCHAT[kv_heads])


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_nanochat_of_2026(kv_heads: int, tmp_path: Path) -> None:
    from tui_llm.llm.formats import nanochat

    predictor, note = nanochat.load(published.nanochat_2026(tmp_path, kv_heads), "d3", CPU)
    assert "March 2026" in note and predictor.vocabulary == 60
    listed = published.NANOCHAT_2026[kv_heads][2]

    def check(features: torch.Tensor) -> None:
        logits = predictor.head(features, 60)
        for row, wanted in zip((199, 3), listed, strict=True):
            torch.testing.assert_close(logits[row, :12], torch.tensor(wanted), atol=3e-6, rtol=0)

    whole = predictor.run(published.LONG)
    check(whole)
    predictor.crop(150)
    check(torch.cat((whole[:150], predictor.run(published.LONG[150:]))))
    predictor.crop(0)
    parts = [published.LONG[:1], published.LONG[1:2], published.LONG[2:190], *([id] for id in published.LONG[190:])]
    check(torch.cat([predictor.run(part) for part in parts]))
    with pytest.raises(ValueError, match="context of 256"):
        predictor.run(published.LONG[:57])


def test_nanochat_of_2026_in_the_engine(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    path = published.nanochat_2026(tmp_path)
    vocabulary = {"<|bos|>": 59, **{chr(65 + id): id for id in range(59)}}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    made.add_special_tokens(["<|bos|>"])
    made.save(str(tmp_path / "tokenizer.json"))
    engine = PipelineEngine("cpu")
    weights = engine.open(str(tmp_path))
    assert (weights.kind, weights.vocabulary, weights.layers, weights.context) == ("nanochat", 60, 3, 256)
    assert "March 2026" in weights.note and "the vocabulary beside it" in weights.note
    reading = engine.read(Request(prompt="".join(chr(65 + id) for id in published.LONG[:4])))
    assert [token.id for token in reading.tokens.tokens] == published.LONG[:4]
    info = describe(find(str(path)))
    assert (info.context, info.vocabulary, info.problem) == (256, 60, None)


@pytest.mark.parametrize(
    ("more", "settings", "message"),
    [
        ({"smear_gate.weight": (1, 24)}, {}, r"no tensor transformer\.h\.1\.attn\.ve_gate"),
        ({"resid_lambdas": (2,)}, {}, "between 11 January and 14 March 2026"),
        ({"value_embeds.1.weight": (64, 16)}, {}, "between 11 January and 14 March 2026"),
        ({"other.weight": (2,)}, {}, r"other\.weight, which this nanochat has not"),
        ({}, {"window_pattern": "SSSL"}, "windows"),
        ({}, {"window_pattern": "SXL"}, "window_pattern 'SXL'; only S and L"),
        ({}, {"window_pattern": ""}, "window_pattern ''"),
        ({}, {"n_layer": 3}, r"no tensor transformer\.h\.2"),
        ({}, {"n_embd": 32}, r"is \[64, 16\]"),
        ({}, {"vocab_size": 65}, "no embedding of 65 tokens"),
        ({}, {"n_head": 1 << 40}, "no usable n_head"),
        ({}, {"n_head": 3}, "heads don't divide"),
        ({}, {"n_layer": 10_000}, "no tensor"),
    ],
)
def test_other_nanochats_are_refused_by_name(
    more: Any, settings: Any, message: str, tmp_path: Path, nanochat_archive: archive.Archive
) -> None:
    from tui_llm.llm.formats import nanochat, nanochat_meta

    path = tmp_path / "model_000100.pt"
    published.nanochat_meta(tmp_path, settings=settings)
    tensors = {name: TensorInfo("F32", shape, 0, 0) for name, shape in more.items()}
    found = dataclasses.replace(nanochat_archive, tensors={**nanochat_archive.tensors, **tensors})
    with pytest.raises(UserError, match=message) as caught:
        nanochat.checked(found, nanochat_meta.read_meta(path), path)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def nanochat_archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[archive.Archive]:
    with archive.opened(published.nanochat(tmp_path_factory.mktemp("nanochat"))) as found:
        yield found


def test_nanochat_needs_its_meta_and_its_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tui_llm.llm.formats import vocabulary

    path = published.nanochat(tmp_path)
    with pytest.raises(UserError, match=r"tokenizer\.json beside it"):
        vocabulary.load(path, "nanochat", "d2", 60)
    (tmp_path / "meta_000100.json").unlink()
    with pytest.raises(UserError, match=r"needs meta_000100\.json"):
        PipelineEngine("cpu").open(str(path))
