"""Vocabularies of a text's characters or words: ids by nanoGPT's closed form, and as transformers reads the saved files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tui_llm.common.errors import UserError
from tui_llm.llm.data import closed_vocabulary, corpus
from tui_llm.llm.data.formats import TextFormat
from tui_llm.llm.hub import choices, hub, lookup
from tui_llm.llm.tokens import closed, closed_files, tokenizer, words
from tui_llm.llm.tokens.closed import ClosedTokenizer
from tui_llm.llm.tokens.text import END_OF_TEXT

TEXT = (
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak. Don't — é 日本 😀 e\u0301 12"
)


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8", newline="")
    return path


def made(path: Path, kind: str) -> ClosedTokenizer:
    return ClosedTokenizer(kind, kind, closed_vocabulary.tokens([path], kind))


def test_char_ids_are_nanogpts(tmp_path: Path) -> None:
    """`stoi = {ch: i for i, ch in enumerate(sorted(set(data)))}` (nanoGPT, data/shakespeare_char/prepare.py)."""
    path = write(tmp_path / "a.txt", TEXT)
    stoi = {ch: i for i, ch in enumerate(sorted(set(TEXT)))}
    vocabulary = made(path, "char")
    assert vocabulary.tokens == list(stoi) and vocabulary.size == len(stoi) and vocabulary.end_of_text is None
    wanted = [stoi[ch] for ch in TEXT]
    assert vocabulary.encode(TEXT) == wanted == vocabulary.encode_array(TEXT).tolist()
    assert vocabulary.decode(wanted) == TEXT
    loaded = corpus.load([path], vocabulary, 0.1, block_size=4)
    assert [*loaded.train.tolist(), *loaded.validation.tolist()] == wanted
    assert loaded.bytes_per_token == pytest.approx(len(TEXT.encode()) / len(TEXT))


def test_words_count_in_order_of_appearance(tmp_path: Path) -> None:
    vocabulary = made(write(tmp_path / "a.txt", TEXT), "word")
    reference = tokenizer.WordTokenizer()
    assert vocabulary.encode(TEXT) == reference.encode(TEXT) == vocabulary.encode_array(TEXT).tolist()
    assert [vocabulary.token_bytes(id) for id in range(vocabulary.size)] == [
        reference.token_bytes(id) for id in range(reference.size)
    ]


@pytest.mark.parametrize("kind", closed_files.KINDS)
def test_several_documents_are_separated(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in ("a b", "b c", "")))
    vocabulary = made(path, kind)
    pieces = [" ", "a", "b", "c"] if kind == "char" else ["a", " ", "b", "c"]
    assert vocabulary.tokens == [*pieces, END_OF_TEXT] and vocabulary.end_of_text == 4
    ids = {piece: id for id, piece in enumerate(pieces)}
    wanted = [ids["a"], ids[" "], ids["b"], 4, ids["b"], ids[" "], ids["c"], 4]
    loaded = corpus.load([path], vocabulary, 0.25, block_size=1)
    assert [*loaded.train.tolist(), *loaded.validation.tolist()] == wanted
    assert vocabulary.encode(f"a{END_OF_TEXT}b", allow_special=True) == [ids["a"], 4, ids["b"]]
    with pytest.raises(UserError, match="has no"):
        vocabulary.encode(f"a{END_OF_TEXT}b")
    whole = closed_vocabulary.tokens([path], kind, TextFormat("text"))
    assert whole[-1] != END_OF_TEXT and {"{", '"'} <= set(whole)


@pytest.mark.parametrize("kind", closed_files.KINDS)
@pytest.mark.parametrize("documents", [1, 2])
def test_transformers_reads_the_saved_files_alike(kind: str, documents: int, tmp_path: Path) -> None:
    vocabulary = made(write(tmp_path / "a.txt", END_OF_TEXT.join([TEXT] * documents)), kind)
    folder = tmp_path / "saved"
    folder.mkdir()
    hub.save_vocabulary(vocabulary, folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert len(theirs) == vocabulary.size == lookup.size_of_vocabulary(folder)
    assert theirs(TEXT).input_ids == vocabulary.encode(TEXT) and theirs.decode(vocabulary.encode(TEXT)) == TEXT
    assert theirs.eos_token_id == vocabulary.end_of_text
    if documents == 2:
        assert theirs(f"All{END_OF_TEXT}").input_ids == vocabulary.encode(f"All{END_OF_TEXT}", allow_special=True)
    ours = closed.load(folder, "again")
    assert ours is not None and (ours.kind, ours.tokens, ours.name) == (kind, vocabulary.tokens, "again")
    assert isinstance(hub.load_vocabulary(folder, "x"), ClosedTokenizer)


@given(text=st.text(min_size=1, max_size=60), kind=st.sampled_from(closed_files.KINDS))
def test_any_text_is_encoded_and_decoded(text: str, kind: str) -> None:
    from tui_llm.llm.tokens.text import clean

    pieces = sorted(set(clean(text))) if kind == "char" else list(dict.fromkeys(words.split(text)))
    vocabulary = ClosedTokenizer(kind, kind, pieces)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == clean(text) and vocabulary.encode_array(text).tolist() == ids


def test_what_it_does_not_have_is_named(tmp_path: Path) -> None:
    for kind, why in (("char", "no character '€', only the"), ("word", "no word '€', only the")):
        vocabulary = made(write(tmp_path / "a.txt", TEXT), kind)
        for encode in (vocabulary.encode, vocabulary.encode_array):
            with pytest.raises(UserError, match=why):
                encode("me€")
        with pytest.raises(KeyError):
            vocabulary.token_bytes(vocabulary.size)


def test_the_choices_of_a_vocabulary_without_the_letter_a(tmp_path: Path) -> None:
    for kind in ("char", "word"):
        found = choices.of_vocabulary(made(write(tmp_path / "a.txt", "To be, or not to be"), kind))
        assert not found.prefix_space and not found.starts


def test_too_many_tokens_and_damage_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", TEXT)
    monkeypatch.setattr(closed_vocabulary, "MOST", 5)
    with pytest.raises(UserError, match="more than 5 different words, too many"):
        closed_vocabulary.tokens([path], "word")
    with pytest.raises(UserError, match="is empty"):
        closed_vocabulary.tokens([write(tmp_path / "empty.txt", "\n\n")], "char")
    folder = tmp_path / "saved"
    folder.mkdir()
    hub.save_vocabulary(ClosedTokenizer("char", "char", ["a", "b"]), folder)
    (folder / "vocab.json").write_text('{"a": 0, "b": 2}')
    with pytest.raises(UserError, match="lacks some ids"):
        closed.load(folder)
    (folder / "tokenizer.json").write_text("{}")
    assert closed.load(folder) is None
