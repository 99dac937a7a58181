"""Add a vocabulary from a file: a well-known one is identified by its SHA-256, any other is stored under a name after a
round-trip test."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.new_files import write_folder
from tui_llm.llm.tokens import catalog, vocabulary_files
from tui_llm.llm.tokens.added import _ADDED
from tui_llm.llm.tokens.folder_files import read_file
from tui_llm.llm.tokens.pre_tokenizer import UnknownRule
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.llm.tokens.tokenizer import BPETokenizer, from_merges
from tui_llm.llm.tokens.vocabulary_folder import from_files, load_folder, save_folder

# Texts that encoding and decoding must reproduce: words, numbers, signs, white space, many scripts.
SAMPLES = (
    "Once upon a time, there was a little girl. She'd said: \"It's 1,234.50 o'clock!\"",
    "  two\tspaces \r\n\n\n and lines   ", "naïve Ærøskøbing Москва 東京 עברית العربية ไทย 👩‍👩‍👧 e\u0301",
    "[/] [red] <b> \\x1b[31m {}", END_OF_TEXT, "".join(map(chr, range(1, 0x250))),
)  # fmt: skip


class Added(NamedTuple):
    """A vocabulary's name, where it is stored, and what was assumed of it, or empty."""

    name: str
    folder: Path
    note: str = ""


def add(path: Path, name: str | None = None, *, force: bool = False) -> Added:
    """Store the vocabulary in `path`, a file or a folder.

    Raises `UserError` if it is no usable vocabulary, if it is not a well-known one and has no `name`, or if the name is
    taken and `force` is not set.
    """
    if path.is_dir():
        path = next(
            (path / file for file in ("merges.txt", "vocab.bpe", "tokenizer.json") if (path / file).is_file()), path
        )
        if path.is_dir():
            raise UserError(f"{path} has no vocabulary; vocab.json and merges.txt are needed, or tokenizer.json")
    data = vocabulary_files.read_bytes(path)
    tokens, made = _read(path, data)
    lines = vocabulary_files.tiktoken_lines(tokens)
    for known in catalog.NAMED:
        if hashlib.sha256(lines).hexdigest() == catalog.sha256(known):
            return Added(known, catalog.add_file(known, lines))
    if name is None:
        raise UserError(
            f"{path} is not one of {', '.join(catalog.NAMED)}: its tokens don't have the SHA-256 that tiktoken expects; to add it as another "
            "vocabulary, give it a name with --name"
        )
    if not _ADDED.fullmatch(name) or name in (*catalog.NAMED, *catalog.COMPARED):
        raise UserError(f"{name[:80]!r} can't be its name; give another, of letters, digits and -._, 64 at most")
    if isinstance(made, str):
        raise UserError(made)
    for text in SAMPLES:
        if made.decode_bytes(made.encode_after(text)) != text.encode():
            raise UserError(f"{path} is damaged: {text[:20]!r}…, encoded and decoded, is not the same text")
    folder = paths.vocabularies_dir() / name
    write_folder(folder, lambda part: save_folder(made, part), last="vocab.json", force=force, inputs=(path,))
    note = "" if path.suffix == ".json" or path.name in _MERGES else ASSUMED.format(made.end_of_text)
    return Added(name, folder, note)


def _read(path: Path, data: bytes) -> tuple[list[bytes], BPETokenizer | str]:
    """The tokens by rank; and the tokenizer, or the reason why it can't be used as one."""
    if path.suffix == ".json" and path.name != "vocab.json" and not _is_vocab(path, data):
        tokens = vocabulary_files.read_tokenizer_json(path)
        try:
            return tokens, from_files(read_file(path), path.parent.name)
        except UnknownRule as error:
            return tokens, f"{error}; open the model that it belongs to instead (--model FOLDER)"
    if path.suffix == ".json" or path.name in _MERGES:
        merges_path = path if path.suffix != ".json" else path.with_name("merges.txt")
        merges = vocabulary_files.read_merges(vocabulary_files.read_bytes(merges_path), merges_path)
        tokens = vocabulary_files.tokens_of(merges)
        if not (merges_path.parent / "vocab.json").is_file():
            return tokens, f"{merges_path.parent} has no vocab.json beside the merges; it has the ids, so put it there"
        try:
            return tokens, load_folder(merges_path.parent)
        except UnknownRule as error:
            return tokens, f"{error}; open the model that it belongs to instead (--model FOLDER)"
    tokens = vocabulary_files.read_tiktoken(data, path)
    if len(set(tokens)) != len(tokens) or len([token for token in tokens if len(token) == 1]) != 256:
        return tokens, f"{path} lacks some of the 256 bytes, or contains a token twice; it is damaged"
    if sum(len(token) ** 2 for token in tokens) > _MOST_WORK:  # the cost of reconstructing the merges
        return (
            tokens,
            f"{path} has tokens of up to {max(map(len, tokens)):,} bytes; a vocabulary of text has none so long",
        )
    return tokens, _from_tokens(path, tokens)


def _from_tokens(path: Path, tokens: list[bytes]) -> BPETokenizer | str:
    ranks = {token: rank for rank, token in enumerate(tokens)}
    merges = catalog._merges(ranks)
    vocab = vocabulary_files.vocab_of(tokens) | {END_OF_TEXT: len(tokens)}
    return from_merges(path.stem, merges, vocab, {END_OF_TEXT: len(tokens)}, path)


def _is_vocab(path: Path, data: bytes) -> bool:
    """Whether it is a `vocab.json` under another name (`encoder.json`): it has no "model" entry, and merges.txt is in
    the same folder."""
    return b'"model"' not in data[:LOOK] and b'"merges"' not in data and (path.parent / "merges.txt").is_file()


_MERGES = ("merges.txt", "vocab.bpe")
# A .tiktoken file has neither; those of Qwen and Llama 3 have other rules and other special tokens.
ASSUMED = (
    "its file does not say how a text is cut, nor its special tokens: GPT-2's rule is assumed, and <|endoftext|> as id {:,}; "
    "for another model's vocabulary (Qwen, Llama 3) add the model's tokenizer.json instead"
)
_MOST_WORK = 40_000_000  # steps; o200k_base needs 13 million
LOOK = 1_000_000  # leading bytes of a JSON file that are searched for its kind
