"""The files of a vocabulary of characters or words: `vocab.json`, and the `tokenizer.json` that transformers opens. No
tokenizer here.

The `tokenizer.json` is a WordLevel model whose pre-tokenizer isolates each character, or each word (see `words.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json, write_text
from tui_llm.common.foreign_files import VOCABULARY, read_json
from tui_llm.llm.tokens import words
from tui_llm.llm.tokens.text import END_OF_TEXT, clean
from tui_llm.llm.tokens.vocab_json import read_vocab

KINDS = ("char", "word")  # the vocabularies that are made from the text to train on
MOST = 1 << 18  # tokens
_PATTERNS = {"char": r"[\s\S]", "word": words.PATTERN}
_UNKNOWN = "<unk>"  # not in the vocabulary: the library refuses what it doesn't know


def kind_of(folder: Path) -> str | None:
    """`char` or `word` if the folder has such a vocabulary, as `save` writes it, else None."""
    if (folder / "merges.txt").exists() or not all((folder / f).is_file() for f in ("vocab.json", "tokenizer.json")):
        return None
    try:
        raw = read_json(folder / "tokenizer.json", VOCABULARY)
        pattern = raw["pre_tokenizer"]["pattern"]["Regex"] if raw["model"]["type"] == "WordLevel" else None
    except (UserError, KeyError, TypeError):
        return None
    return next((kind for kind, known in _PATTERNS.items() if pattern == known), None)


def read(folder: Path, kind: str) -> list[str]:
    """The tokens by id, `<|endoftext|>` included. Raises `UserError` if an id is missing, or a token is not of that kind."""
    path = folder / "vocab.json"
    vocab = read_vocab(path)
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise UserError(f"{path} lacks some ids; the file is damaged")
    tokens = sorted(vocab, key=vocab.__getitem__)
    plain = tokens[:-1] if tokens and tokens[-1] == END_OF_TEXT else tokens
    wrong = next((token for token in plain if clean(token) != token or (kind == "char" and len(token) != 1)), None)
    if wrong is not None:
        what = "character" if kind == "char" else "text"
        raise UserError(f"{path} has the token {wrong[:40]!r}, which is no {what}; the file is damaged")
    return tokens


def save(kind: str, tokens: list[str], end_of_text: int | None, folder: Path) -> None:
    """Write the vocabulary's files. Raises `UserError`."""
    vocab = {token: id for id, token in enumerate(tokens)}
    added = [] if end_of_text is None else [_special(end_of_text)]
    whole: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": _PATTERNS[kind]}, "behavior": "Isolated", "invert": False},
        "post_processor": None, "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": _UNKNOWN},
    }  # fmt: skip
    special = None if end_of_text is None else END_OF_TEXT
    write_text(folder / "vocab.json", json.dumps(vocab, ensure_ascii=False))
    write_text(folder / "tokenizer.json", json.dumps(whole, ensure_ascii=False))
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": special, "eos_token": special, "clean_up_tokenization_spaces": False},
    )  # fmt: skip


def _special(id: int) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": id, "content": END_OF_TEXT, **flags}
