"""Tokenizers: text ↔ ids ↔ bytes.

A token is an id and its bytes; the vocabulary is a list of byte strings. Byte-pair encoding (BPE) splits text into
words with a regular expression, then merges each word's bytes, the earliest-learned merge first. tiktoken does this for
every BPE vocabulary here; for a model folder its ranks are built from merges.txt.

Decoding does not invert encoding (several id sequences give the same text), so ids are stored and never re-computed
from text.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import regex
import tiktoken

from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json, write_text
from tui_llm.common.foreign_files import VOCABULARY, read_foreign_text
from tui_llm.llm.tokens.text import END_OF_TEXT, clean
from tui_llm.llm.tokens.vocab_json import read_vocab
from tui_llm.llm.tokens.words import split

# GPT-2's pre-tokenization pattern (openai/gpt-2, src/encoder.py).
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


class Tokenizer(ABC):
    """A vocabulary. `size` is its number of tokens, special ones included."""

    name: str
    size: int
    end_of_text: int | None = None  # the token that separates documents
    parallel = False  # whether encoding in several threads is safe and faster

    @abstractmethod
    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """The ids of `text`. Special tokens in it are treated as plain text unless `allow_special`. Lone surrogates
        become U+FFFD, because UTF-8 can't encode them."""

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        """As `encode`, as a uint32 array, for long texts."""
        return np.array(self.encode(text), dtype=np.uint32)

    def encode_after(self, text: str, *, allow_special: bool = False) -> list[int]:
        """The ids of `text` as the continuation of another text: without the space that some vocabularies prepend to
        the first word."""
        return self.encode(text, allow_special=allow_special)

    @abstractmethod
    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token. Raises KeyError if the id is not in the vocabulary."""

    def is_special(self, id: int) -> bool:
        return id == self.end_of_text

    @property
    def start(self) -> int | None:
        """The token that can precede a text (BOS), or None."""
        return self.end_of_text

    @property
    def starts(self) -> bool:
        """Whether training texts mostly began with the start token."""
        return False

    def ends(self, id: int) -> bool:
        """Whether the token ends the text."""
        return id == self.end_of_text

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; invalid UTF-8 becomes U+FFFD. Raises KeyError if an id is not in the vocabulary."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")


# Longer runs of white space are split before the pattern is applied: its look-ahead overflows the regex engine's stack.
_LONGEST_RUN = 4096


class BPETokenizer(Tokenizer):
    """Byte-pair encoding by tiktoken. `ids` maps tiktoken's ranks to the vocabulary's own ids if they differ."""

    parallel = True  # tiktoken releases the GIL

    def __init__(self, name: str, encoding: tiktoken.Encoding, size: int, end_of_text: int | None,
                 ids: dict[int, int] | None = None, merges: list[tuple[bytes, bytes]] | None = None) -> None:  # fmt: skip
        self.name = name
        self.encoding = encoding
        self.size = size
        self.end_of_text = end_of_text
        self.merges = merges
        self._ids = ids
        self._bytes: dict[int, bytes] = {}  # cache: a table looks the same tokens up again and again
        self._ranks = {id: rank for rank, id in ids.items()} if ids is not None else None
        self._table: npt.NDArray[np.uint32] | None = None  # `_ids` as an array
        if ids is not None:
            self._table = np.zeros(max(ids) + 1, np.uint32)
            self._table[list(ids)] = list(ids.values())

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        text = clean(text)
        allowed: Any = "all" if allow_special else set()
        ids: list[int] = []
        for part in _without_long_runs(text):
            ids += self.encoding.encode(part, allowed_special=allowed, disallowed_special=())
        return ids if self._ids is None else [self._ids[rank] for rank in ids]

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        parts = _without_long_runs(clean(text))
        ids = np.concatenate([self.encoding.encode_to_numpy(part, disallowed_special=()) for part in parts])
        return ids if self._table is None else self._table[ids]

    def token_bytes(self, id: int) -> bytes:
        if (known := self._bytes.get(id)) is not None:
            return known
        rank = id if self._ranks is None else self._ranks[id]
        try:
            known = self._bytes[id] = self.encoding.decode_single_token_bytes(rank)
        except OverflowError:
            raise KeyError(id) from None
        return known

    # ── single steps of the encoding, for `bpe` ──

    @property
    def pattern(self) -> str:
        """The regular expression that splits text into words."""
        return self.encoding._pat_str

    @property
    def merge_count(self) -> int:
        return len(self.encoding._mergeable_ranks) - 256

    def words(self, text: str) -> list[str]:
        """`text` split by the pattern; each word is encoded on its own, so no token spans two words."""
        words: list[str] = []
        for part in _without_long_runs(clean(text)):
            words += _compiled(self.pattern).findall(part)
        return words

    def rank(self, token: bytes) -> int | None:
        """The index of the merge that made this token, 0 for the first; negative for single bytes, None if it is no
        token."""
        rank = self.encoding._mergeable_ranks.get(token)
        return None if rank is None else rank - 256


@lru_cache(8)
def _compiled(pattern: str) -> Any:
    return regex.compile(pattern)


def _without_long_runs(text: str) -> list[str]:
    """Split `text` inside runs of more than 4,096 white space characters."""
    # A run that long leaves consecutive white space in the samples, which are quick to scan.
    if _RUN_SAMPLED.search(text[::_SAMPLE]) is None:
        return [text]
    parts, start = [], 0
    for run in _RUN.finditer(text):
        for cut in range(run.start() + _LONGEST_RUN, run.end(), _LONGEST_RUN):
            parts.append(text[start:cut])
            start = cut
    parts.append(text[start:])
    return parts


_RUN = regex.compile(rf"\s{{{_LONGEST_RUN + 1},}}+")
_SAMPLE = 512
_RUN_SAMPLED = regex.compile(rf"\s{{{_LONGEST_RUN // _SAMPLE}}}")


class ByteTokenizer(Tokenizer):
    """Each byte is a token; its id is its value."""

    name = "byte"
    size = 256

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return list(clean(text).encode())

    def token_bytes(self, id: int) -> bytes:
        if not 0 <= id < 256:
            raise KeyError(id)
        return bytes([id])


class CharTokenizer(Tokenizer):
    """Each character is a token; its id is its Unicode code point."""

    name = "char"
    size = 0x110000 - 0x800  # every code point but the surrogates

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return list(map(ord, clean(text)))

    def token_bytes(self, id: int) -> bytes:
        if not 0 <= id < 0x110000 or 0xD800 <= id < 0xE000:
            raise KeyError(id)
        return chr(id).encode()


class WordTokenizer(Tokenizer):
    """Each word, number, sign or run of white space is a token; ids count the distinct ones in order of appearance.

    The vocabulary grows with the texts: an unknown word has no id until it is encoded. A fixed word vocabulary would
    have none for it at all, which is why language models use subwords.
    """

    name = "word"

    def __init__(self) -> None:
        self._words: list[str] = []
        self._ids: dict[str, int] = {}

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self._words)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        ids = []
        for word in split(text):
            if word not in self._ids:
                self._ids[word] = len(self._words)
                self._words.append(word)
            ids.append(self._ids[word])
        return ids

    def token_bytes(self, id: int) -> bytes:
        if not 0 <= id < len(self._words):
            raise KeyError(id)
        return self._words[id].encode()


# ── vocabularies in folders: vocab.json + merges.txt ─────────────────────────────────────────────────────────────


@lru_cache(1)
def byte_characters() -> dict[int, str]:
    """GPT-2's printable character for each byte, as used in `vocab.json` and `merges.txt` (a space is `Ġ`): printable
    Latin-1 maps to itself, the other 68 bytes to U+0100 onwards, in order."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in set(shown)]
    return {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}


@lru_cache(1)
def _character_bytes() -> dict[str, int]:
    return {character: byte for byte, character in byte_characters().items()}


def _as_bytes(written: str, where: Path) -> bytes:
    try:
        table = _character_bytes()
        return bytes(table[c] for c in written)
    except KeyError as error:
        raise UserError(
            f"{where}: {written[:40]!r} is not written in GPT-2's byte alphabet; it is another kind of vocabulary"
        ) from error


def as_written(token: bytes) -> str:
    """A token's bytes as `vocab.json` writes them, see `byte_characters`."""
    table = byte_characters()
    return "".join(table[b] for b in token)


def load_folder(folder: Path, name: str | None = None) -> BPETokenizer:
    """The vocabulary of a model folder (`vocab.json` + `merges.txt`). Raises `UserError` if it has none, or a broken
    one."""
    vocab_path, merges_path = folder / "vocab.json", folder / "merges.txt"
    if not vocab_path.is_file() or not merges_path.is_file():
        raise UserError(f"{folder} has no vocabulary: vocab.json and merges.txt are needed")
    vocab = read_vocab(vocab_path)
    lines = read_foreign_text(merges_path, VOCABULARY).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    merges: list[tuple[bytes, bytes]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        left, _, right = line.rstrip("\r").partition(" ")
        if not left or not right or " " in right:
            raise UserError(f"{merges_path}, line {number}: two pieces with a space between are needed")
        merges.append((_as_bytes(left, merges_path), _as_bytes(right, merges_path)))
    special = {END_OF_TEXT: vocab[END_OF_TEXT]} if END_OF_TEXT in vocab else {}
    return from_merges(name or folder.name, merges, vocab, special, vocab_path)


def from_merges(
    name: str, merges: list[tuple[bytes, bytes]], vocab: dict[str, int], special: dict[str, int], where: Path
) -> BPETokenizer:
    """A BPE tokenizer from merges in learned order, `vocab` (token as written → id) and special tokens (text → id).
    `where` is named in errors. Raises `UserError` if `vocab` lacks a token that the merges make."""
    # tiktoken merges the pair whose concatenation has the lowest rank: first the bytes, then the merges in order.
    ranks: dict[bytes, int] = {bytes([b]): i for i, b in enumerate(byte_characters())}
    for left, right in merges:
        ranks.setdefault(left + right, len(ranks))
    ids: dict[int, int] = {}
    for token, rank in ranks.items():
        written = as_written(token)
        if written not in vocab:
            raise UserError(
                f"{where} has no id for {written[:40]!r}, which merges.txt makes; the two files don't belong together"
            )
        ids[rank] = vocab[written]
    special_ranks = {text: len(ranks) + i for i, text in enumerate(special)}
    ids |= {rank: special[text] for text, rank in special_ranks.items()}
    encoding = tiktoken.Encoding(name, pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=special_ranks)
    same = all(rank == id for rank, id in ids.items())
    size = max(vocab.values()) + 1
    return BPETokenizer(name, encoding, size, special.get(END_OF_TEXT), None if same else ids, merges)


def save_folder(tokenizer: BPETokenizer, folder: Path) -> None:
    """Write `vocab.json`, `merges.txt` and the `tokenizer_config.json` that transformers reads. Raises `UserError` if
    the tokenizer has no list of merges."""
    if tokenizer.merges is None:
        raise UserError(f"the vocabulary {tokenizer.name} has no list of merges to write")
    vocab: dict[str, int] = {}
    for id in range(tokenizer.size):
        try:
            token = tokenizer.token_bytes(id)
        except KeyError:
            continue
        vocab[token.decode() if tokenizer.is_special(id) else as_written(token)] = id
    merges = "#version: 0.2\n" + "".join(f"{as_written(a)} {as_written(b)}\n" for a, b in tokenizer.merges)
    write_text(folder / "vocab.json", json.dumps(vocab, ensure_ascii=False))
    write_text(folder / "merges.txt", merges)
    special = END_OF_TEXT if tokenizer.end_of_text is not None else None
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "add_bos_token": False,
         "bos_token": special, "eos_token": special, "unk_token": special, "clean_up_tokenization_spaces": False},
    )  # fmt: skip


def byte_level() -> BPETokenizer:
    """256 bytes and `<|endoftext|>`, no merges: the smallest vocabulary of a model folder."""
    vocab = {character: i for i, character in enumerate(byte_characters().values())} | {END_OF_TEXT: 256}
    return from_merges("byte", [], vocab, {END_OF_TEXT: 256}, Path("byte"))
