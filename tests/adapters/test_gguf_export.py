"""GPT-2 as a GGUF file: what llama.cpp computes from it, what we read back, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import gguf_tiny
import pytest
import tiktoken
import torch

from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.llm.adapters.gguf_header import read_gguf
from tui_llm.llm.adapters.gguf_writer import write_gguf
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.llm.tokens.tokenizer import BPETokenizer, byte_level, from_merges, save_folder

# Computed by llama.cpp from the file that `exported` writes as f32; the table names its version.
TABLE = json.loads((Path(__file__).parent / "gguf_logits.json").read_text())
CONFIG = GPTConfig(vocabulary=760, context=40, layers=2, heads=4, width=64, inner=96, epsilon=1e-4)
PROMPT = gguf_tiny.TEXT[:36]


def vocabulary() -> BPETokenizer:
    """`gguf_tiny`'s, with its end-of-text token."""
    tokens, merges = gguf_tiny.byte_level()
    alphabet = {letter: byte for byte, letter in gguf_tiny.byte_characters().items()}
    pairs = [tuple(bytes(alphabet[c] for c in part) for part in merge.split(" ")) for merge in merges]
    ids = {token: id for id, token in enumerate(tokens[:-1])}
    return from_merges("tiny", pairs, ids, {END_OF_TEXT: ids[END_OF_TEXT]}, Path("tiny"))  # type: ignore[arg-type]


def model(**changes: Any) -> GPT:
    """Weights from a formula, the same with every version of torch."""
    made = GPT(dataclasses.replace(CONFIG, **changes)).eval().requires_grad_(False)
    for at, (name, weight) in enumerate(made.weights()):
        wave = torch.sin(torch.arange(weight.numel(), dtype=torch.float64) * (0.7 + at) + at).reshape(weight.shape)
        weight.copy_(wave * 0.2 + (1 if "norm" in name and name.endswith("weight") else 0))
    return made


def logits(made: GPT, ids: list[int]) -> torch.Tensor:
    return made(torch.tensor([ids]))[0]


def exported(path: Path, dtype: str = "f32", **changes: Any) -> tuple[GPT, BPETokenizer]:
    made, tokenizer = model(**changes), vocabulary()
    write_gguf(made, tokenizer, path, "tiny", dtype)
    return made, tokenizer


def read(path: Path, prompt: str = PROMPT) -> tuple[list[int], torch.Tensor]:
    """The prompt's ids and the next token's logits, as the app shows them."""
    engine = PipelineEngine("cpu")
    weights = engine.open(str(path))
    reading = engine.read(Request(prompt=prompt, top=weights.vocabulary))
    assert reading.distribution is not None
    rows = {row.id: row.logit for row in reading.distribution.candidates}
    return list(reading.prompt_ids), torch.tensor([rows[id] for id in range(len(rows))])


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_llama_cpp_computes_the_same_numbers(tied: bool, tmp_path: Path) -> None:
    made, tokenizer = exported(tmp_path / "tiny.gguf", tied=tied)
    row = TABLE["tied" if tied else "untied"]
    assert tokenizer.encode(PROMPT) == row["ids"]
    ours = logits(made, row["ids"])[-1, : tokenizer.size]
    torch.testing.assert_close(ours, torch.tensor(row["logits"]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_our_own_file_reads_back(tied: bool, tmp_path: Path) -> None:
    made, tokenizer = exported(tmp_path / "tiny.gguf", tied=tied)
    ids, found = read(tmp_path / "tiny.gguf")
    assert ids == tokenizer.encode(PROMPT)
    torch.testing.assert_close(found, logits(made, ids)[-1, : tokenizer.size], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "loose"), [("f16", 0.005), ("q8_0", 0.1)])
def test_fewer_bits_read_back_nearly_the_same(dtype: str, loose: float, tmp_path: Path) -> None:
    import gguf

    made, tokenizer = exported(tmp_path / "tiny.gguf", dtype)
    ids, found = read(tmp_path / "tiny.gguf")
    wanted = logits(made, ids)[-1, : tokenizer.size]
    assert 1e-6 < float((found - wanted).abs().max()) < loose
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "tiny.gguf").tensors}
    assert kinds["token_embd.weight"] == kinds["blk.1.ffn_down.weight"] == dtype.upper()
    assert kinds["position_embd.weight"] == kinds["blk.0.attn_qkv.bias"] == kinds["output_norm.weight"] == "F32"


def test_rows_that_q8_0_can_not_hold_are_f16(tmp_path: Path) -> None:
    import gguf

    exported(tmp_path / "tiny.gguf", "q8_0", inner=40)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "tiny.gguf").tensors}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"]) == ("F16", "Q8_0")


@pytest.mark.parametrize("context", [40, 1024, 2000])
def test_the_context_is_the_file_s(context: int, tmp_path: Path) -> None:
    exported(tmp_path / "tiny.gguf", context=context)
    assert PipelineEngine("cpu").open(str(tmp_path / "tiny.gguf")).context == context


def test_text_is_cut_by_the_file_s_rule(tmp_path: Path) -> None:
    """The same file with another `tokenizer.ggml.pre`: ids as llama.cpp gives them, and a refusal of an unknown one."""
    path = tmp_path / "tiny.gguf"
    exported(path, context=600)
    data = path.read_bytes()
    assert data.count(b"gpt-2") == 1
    table = json.loads((Path(__file__).parent / "gguf_ids.json").read_text())
    path.write_bytes(data.replace(b"gpt-2", b"qwen2"))
    (wanted,) = (group["ids"] for group in table["groups"] if "qwen2" in group["pre"])
    assert read(path, gguf_tiny.TEXT)[0] == wanted
    path.write_bytes(data.replace(b"gpt-2", b"gpt-9"))
    with pytest.raises(UserError, match="'gpt-9'"):
        PipelineEngine("cpu").open(str(path))


def test_bytes_alone_are_a_vocabulary_too(tmp_path: Path) -> None:
    tokenizer = byte_level()
    write_gguf(model(vocabulary=257, context=200), tokenizer, tmp_path / "tiny.gguf", "bytes")
    text = "<|endoftext|> é"
    assert read(tmp_path / "tiny.gguf", text)[0] == tokenizer.encode(text)


def test_what_gguf_can_not_hold_is_refused(tmp_path: Path) -> None:
    made, tokenizer = model(), vocabulary()
    path = tmp_path / "tiny.gguf"
    alphabet = {letter: id for id, letter in enumerate(gguf_tiny.byte_characters().values())}
    with pytest.raises(UserError, match="endoftext"):
        write_gguf(made, from_merges("bare", [], alphabet, {}, Path("bare")), path, "tiny")
    with pytest.raises(UserError, match="does not cut text as GPT-2"):
        encoding = tiktoken.Encoding(
            "x", pat_str=".", mergeable_ranks={bytes([b]): b for b in range(256)}, special_tokens={}
        )
        write_gguf(made, BPETokenizer("other", encoding, 256, None, None, []), path, "tiny")
    with pytest.raises(UserError, match="exact GELU"):
        write_gguf(model(exact_gelu=True), tokenizer, path, "tiny")
    with pytest.raises(UserError, match="different models"):
        write_gguf(model(vocabulary=300), tokenizer, path, "tiny")
    made.blocks[0].mlp.up.weight[0, 0] = 1e5
    with pytest.raises(UserError, match="weight has a weight beyond f16"):
        write_gguf(made, tokenizer, path, "tiny", "f16")
    write_gguf(made, tokenizer, path, "tiny")


class Prefixed(BPETokenizer):
    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return super().encode(" " + text, allow_special=allow_special)


class Digits(BPETokenizer):
    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        parts = re.split("([0-9])", text)
        return [id for part in parts for id in super(Digits, self).encode(part, allow_special=allow_special)]


def other(kind: type[BPETokenizer]) -> BPETokenizer:
    plain = vocabulary()
    return kind("other", plain.encoding, plain.size, plain.end_of_text, plain._ids, plain.merges)


def test_a_space_in_front_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="such as a space in front"):
        write_gguf(model(), other(Prefixed), tmp_path / "tiny.gguf", "tiny")


def test_single_digits_are_a_rule_with_a_name(tmp_path: Path) -> None:
    write_gguf(model(context=600), other(Digits), tmp_path / "tiny.gguf", "tiny")
    assert read_gguf(tmp_path / "tiny.gguf").settings["tokenizer.ggml.pre"] == "smollm"
    table = json.loads((Path(__file__).parent / "gguf_ids.json").read_text())
    (wanted,) = (group["ids"] for group in table["groups"] if "smollm" in group["pre"])
    assert read(tmp_path / "tiny.gguf", gguf_tiny.TEXT)[0] == wanted


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out + err


def test_the_command_writes_a_model_and_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, path = tmp_path / "model", tmp_path / "made.gguf"
    tokenizer = vocabulary()
    checkpoint.save(model(), folder, end_of_text=tokenizer.end_of_text)
    save_folder(tokenizer, folder)
    code, out = said(capsys, "export", str(folder), str(path), "--gguf", "--dtype", "f16", "--json")
    assert code == 0 and json.loads(out) == {"run": "model", "path": str(path), "step": None, "dtype": "f16"}
    whole = path.read_bytes()
    code, out = said(capsys, "export", str(folder), str(path), "--gguf")
    assert code == 2 and "--force" in out and path.read_bytes() == whole
    code, out = said(capsys, "export", str(folder), str(path), "--gguf", "--force")
    assert code == 0 and read_gguf(path).settings["general.file_type"] == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made.gguf", "model"]
    for words, part in (
        ([str(folder), str(tmp_path / "a.bin"), "--gguf"], "ends in .gguf"),
        ([str(folder), str(tmp_path / "a.gguf"), "--gguf", "--dtype", "bfloat16"], "f32, f16 or q8_0"),
        ([str(path), str(tmp_path / "a.gguf"), "--gguf"], "GPT-2's layout"),
        ([str(folder), str(folder / "a.gguf"), "--gguf"], "give another name"),
        ([str(tmp_path / "none"), str(tmp_path / "a.gguf"), "--gguf"], "no model"),
    ):
        code, out = said(capsys, "export", *words)
        assert code == 2 and part in out and len(out.splitlines()) == 1, out
