"""GGUF files' vocabularies: ids as llama.cpp gives them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf_tiny
import pytest

from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.llm.adapters import gguf_vocabulary
from tui_llm.llm.adapters.gguf_header import read_gguf
from tui_llm.llm.adapters.gguf_splits import SPLITS
from tui_llm.llm.adapters.gguf_vocabulary import ARRAYS, read_vocabulary
from tui_llm.llm.adapters.vocabulary import JsonTokenizer

# What llama.cpp gives for these files; the table names its version.
TABLE = json.loads((Path(__file__).parent / "gguf_ids.json").read_text())


def opened(path: Path) -> JsonTokenizer:
    return read_vocabulary(read_gguf(path, ARRAYS), path).tokenizer("tiny", path, 1 << 20, [])


def test_the_table_has_every_name() -> None:
    assert sorted(pre for group in TABLE["groups"] for pre in group["pre"]) == sorted(["", *SPLITS])


@pytest.mark.parametrize("group", TABLE["groups"], ids=lambda group: group["pre"][-1])
def test_text_is_cut_as_llama_cpp_cuts_it(group: dict[str, Any], tmp_path: Path) -> None:
    for at, pre in enumerate(group["pre"]):
        gguf_tiny.write_vocabulary(tmp_path / f"{at}.gguf", pre or None)
        tokenizer = opened(tmp_path / f"{at}.gguf")
        assert tokenizer.encode(gguf_tiny.TEXT) == group["ids"], pre
        assert tokenizer.decode(group["ids"]) == gguf_tiny.TEXT


@pytest.mark.parametrize("row", TABLE["special"], ids=lambda row: f"{row['pre']}-{row['more']}-{row['text'][:9]}")
def test_special_tokens_are_read_as_llama_cpp_reads_them(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    writers = {"llama": gguf_tiny.write_sentence_piece, "gemma4": gguf_tiny.write_gemma4}
    if row["pre"] in writers:
        writers[row["pre"]](path, **row["more"])
    else:
        gguf_tiny.write_vocabulary(path, row["pre"], **row["more"])
    tokenizer = opened(path)
    assert tokenizer.encode(row["text"]) == row["ids"]
    assert tokenizer.encode(row["text"], allow_special=True) == row["special"]
    assert tokenizer.starts == (row["start"] != row["ids"])
    if tokenizer.starts:
        assert [tokenizer.start, *row["ids"]] == row["start"]


def test_an_unknown_rule_is_refused_by_name(tmp_path: Path) -> None:
    gguf_tiny.write_vocabulary(tmp_path / "a.gguf", "next-year")
    with pytest.raises(UserError, match=r"'next-year' \(tokenizer\.ggml\.pre\)") as caught:
        PipelineEngine("cpu").open(str(tmp_path / "a.gguf"))
    assert "\n" not in str(caught.value)


def test_other_kinds_of_vocabulary_are_refused_by_name(tmp_path: Path) -> None:
    import gguf

    for kind in ("bert", "t5", "rwkv", "plamo2"):
        writer = gguf.GGUFWriter(tmp_path / f"{kind}.gguf", "llama")
        writer.add_tokenizer_model(kind)
        writer.add_token_list(["a", "b"])
        gguf_tiny.finish(writer, {})
        with pytest.raises(UserError, match=f"'{kind}'"):
            PipelineEngine("cpu").open(str(tmp_path / f"{kind}.gguf"))


@pytest.mark.parametrize(("name", "most"), [("_MOST_MERGES", 10), ("_MOST_MERGED", 40)])
def test_the_merges_of_scores_are_counted_while_they_are_made(
    name: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token of n letters makes n - 1 merges."""
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tokenizer_model("llama")
    tokens = ["a" * length for length in range(1, 7)]  # 15 merges of 70 letters
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    gguf_tiny.finish(writer, {"bos_token_id": 0})
    assert (
        len(json.loads(read_vocabulary(read_gguf(tmp_path / "a.gguf", ARRAYS), tmp_path).json)["model"]["merges"]) == 15
    )
    monkeypatch.setattr(gguf_vocabulary, name, most)
    made = gguf_vocabulary._scored_merges
    seen: list[list[str]] = []
    monkeypatch.setattr(
        gguf_vocabulary, "_scored_merges", lambda *given: (seen.append(merge) or merge for merge in made(*given))
    )
    with pytest.raises(UserError, match="merges"):
        opened(tmp_path / "a.gguf")
    assert len(seen) <= 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_list": None}, "no vocabulary"),
        ({"token_list": ["a", "a"]}, "twice"),
        ({"token_list": ["a" * 1000]}, "1,000 characters"),
        ({"token_merges": None}, "no merges"),
        ({"token_merges": ["ab"]}, "'ab'"),
        ({"token_merges": ["a q"]}, "can't be read"),
        ({"token_types": [1]}, "token_type has 1 values"),
        ({"add_bos_token": True, "bos_token_id": 99}, "names none"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_damaged_vocabulary_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    import gguf

    path = tmp_path / "bad.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    values = {"token_list": ["a", "b", "ab"], "token_merges": ["a b"], **change}
    gguf_tiny.finish(writer, {name: value for name, value in values.items() if value is not None})
    with pytest.raises(UserError, match=message):
        opened(path)
