"""Text ↔ ids ↔ bytes.

A token is its id and its bytes; the vocabulary is a list of byte strings. Byte-pair encoding (BPE) cuts text into words
with a pattern, then each word's bytes into the longest pieces that its merges make, the earliest-learned merge first.
tiktoken does that work for every BPE vocabulary here: its ranks are built from a folder's merges.

Decoding does not undo encoding (several id sequences give the same text), so ids are kept, never re-made from text.
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

# How GPT-2 cuts text into words before merging (openai/gpt-2, src/encoder.py).
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


class Tokenizer(ABC):
    """A vocabulary. `size` counts its tokens, special ones included."""

    name: str
    size: int
    end_of_text: int | None = None  # what stands between two texts
    parallel = False  # whether several threads may encode at once, and gain by it

    @abstractmethod
    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """The ids of `text`. Special tokens written in it are text, unless `allow_special`. Lone surrogates
        become U+FFFD, since no UTF-8 stands for them."""

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        """As `encode`, for much text."""
        return np.array(self.encode(text), dtype=np.uint32)

    def encode_after(self, text: str, *, allow_special: bool = False) -> list[int]:
        """The ids of `text` where it goes on with a text that is there: without the space that some vocabularies put in
        front of a text's first word."""
        return self.encode(text, allow_special=allow_special)

    @abstractmethod
    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token. Raises KeyError where the id is not in the vocabulary."""

    def is_special(self, id: int) -> bool:
        return id == self.end_of_text

    @property
    def start(self) -> int | None:
        """The token that can stand in front of a text."""
        return self.end_of_text

    @property
    def starts(self) -> bool:
        """Whether the model has mostly seen its start token in front of a text."""
        return False

    def ends(self, id: int) -> bool:
        """Whether the token says that the text is over."""
        return id == self.end_of_text

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Sequence[int]) -> str:
        return self.decode_bytes(ids).decode("utf-8", errors="replace")


# Longer runs of white space are cut before the pattern sees them: its look-ahead overflows the regex engine's stack.
_LONGEST_RUN = 4096


class BPETokenizer(Tokenizer):
    """Byte-pair encoding by tiktoken. `ids` maps tiktoken's ranks to the vocabulary's own ids where they differ."""

    parallel = True  # tiktoken works without Python's lock

    def __init__(self, name: str, encoding: tiktoken.Encoding, size: int, end_of_text: int | None,
                 ids: dict[int, int] | None = None, merges: list[tuple[bytes, bytes]] | None = None) -> None:  # fmt: skip
        self.name = name
        self.encoding = encoding
        self.size = size
        self.end_of_text = end_of_text
        self.merges = merges
        self._ids = ids
        self._bytes: dict[int, bytes] = {}  # of the tokens that were asked for: a table asks for the same ones again
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

    # ── the steps of the encoding, one by one (`bpe`) ──

    @property
    def pattern(self) -> str:
        """The regular expression that cuts text into words."""
        return self.encoding._pat_str

    @property
    def merge_count(self) -> int:
        return len(self.encoding._mergeable_ranks) - 256

    def words(self, text: str) -> list[str]:
        """The pieces of `text` that are merged each for itself: no token reaches over their ends."""
        words: list[str] = []
        for part in _without_long_runs(clean(text)):
            words += _compiled(self.pattern).findall(part)
        return words

    def rank(self, token: bytes) -> int | None:
        """When the merges made this token: 0 is the first merge. None where they make no such token; single bytes, which
        are there before any merge, rank below 0."""
        rank = self.encoding._mergeable_ranks.get(token)
        return None if rank is None else rank - 256


@lru_cache(8)
def _compiled(pattern: str) -> Any:
    return regex.compile(pattern)


def _without_long_runs(text: str) -> list[str]:
    """`text` cut where white space runs on for over 4,096 characters (no such run: not cut)."""
    if _RUN_SAMPLED.search(text[::_SAMPLE]) is None:  # a run that long shows in the samples, which are read at once
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
    """Each byte is a token, its id is its value."""

    name = "byte"
    size = 256

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return list(clean(text).encode())

    def token_bytes(self, id: int) -> bytes:
        if not 0 <= id < 256:
            raise KeyError(id)
        return bytes([id])


class CharTokenizer(Tokenizer):
    """Each character is a token, its id is its Unicode code point."""

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

    Its vocabulary is that of the texts it has seen: a word that it has never met has no id until then, which is why
    nobody trains language models on words.
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
        for word in _WORD.findall(clean(text)):
            if word not in self._ids:
                self._ids[word] = len(self._words)
                self._words.append(word)
            ids.append(self._ids[word])
        return ids

    def token_bytes(self, id: int) -> bytes:
        if not 0 <= id < len(self._words):
            raise KeyError(id)
        return self._words[id].encode()


def words(text: str) -> list[str]:
    """The words and numbers of `text`, as `WordTokenizer` has them, without white space and signs."""
    return [word for word in _WORD.findall(clean(text)) if word[0].isalnum()]


_WORD = regex.compile(r"\p{L}[\p{L}\p{M}'’]*|\p{N}+|\s+|\X")


# ── vocabularies in folders: vocab.json + merges.txt ─────────────────────────────────────────────────────────────


@lru_cache(1)
def byte_characters() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte, as `vocab.json` and `merges.txt` write it (a space is `Ġ`):
    printable Latin-1 stands for itself, the other 68 bytes are U+0100 and on, in their order."""
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
    table = byte_characters()
    return "".join(table[b] for b in token)


def load_folder(folder: Path, name: str | None = None) -> BPETokenizer:
    """The vocabulary of a model folder (`vocab.json` + `merges.txt`). Raises `UserError` where it has none."""
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
    # tiktoken merges the pair whose joint bytes have the lowest rank: bytes first, then the merges in their order.
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
    """Writes `vocab.json`, `merges.txt` and what transformers needs to know beside them."""
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
    """256 bytes and `<|endoftext|>`, no merges: the smallest vocabulary that a model folder can carry."""
    vocab = {character: i for i, character in enumerate(byte_characters().values())} | {END_OF_TEXT: 256}
    return from_merges("byte", [], vocab, {END_OF_TEXT: 256}, Path("byte"))
