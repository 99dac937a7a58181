"""Tokenizers: text ↔ ids ↔ bytes.

A token is an id and its bytes; the vocabulary is a list of byte strings. Byte-pair encoding (BPE) splits text into
words with a regular expression, then merges each word's bytes, the earliest-learned merge first. tiktoken does this for
every BPE vocabulary here; for a model folder its ranks are built from merges.txt.

Decoding does not invert encoding (several id sequences give the same text), so ids are stored and never re-computed
from text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import regex

from tui_llm.common.errors import UserError
from tui_llm.facts.tokens import BYTES, BYTES_AND_END
from tui_llm.llm.tokens.added_tokens import AddedToken
from tui_llm.llm.tokens.pre_tokenizer import GPT2_PATTERN
from tui_llm.llm.tokens.rules import Rules
from tui_llm.llm.tokens.text import END_OF_TEXT, clean
from tui_llm.llm.tokens.words import split

if TYPE_CHECKING:
    import tiktoken

Merge = tuple[bytes, bytes]


class Tokenizer(ABC):
    """A vocabulary. `size` is its number of tokens, special ones included."""

    name: str
    size: int
    end_of_text: int | None = None  # the token that separates documents
    parallel = False  # whether encoding in several threads is safe and faster
    contents = ""  # see `facts.tokens.Tokenization`
    fingerprint = ""  # differs between vocabularies of the same tokens that cut text by other rules

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

    def encode_known(self, text: str) -> list[int]:
        """As `encode`, without the pieces that the vocabulary does not have."""
        return self.encode(text)

    @abstractmethod
    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token. Raises KeyError if the id is not in the vocabulary."""

    def bytes_after(self, previous: int | None, id: int) -> bytes:
        """The bytes that a token adds to a text whose last token is `previous`. Raises KeyError."""
        return self.token_bytes(id)

    def piece(self, id: int) -> str | None:
        """The token as the vocabulary writes it, such as `##ing`, if its text shows it differently."""
        return None

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

    def decode_bytes(self, ids: Sequence[int], previous: int | None = None) -> bytes:
        return b"".join(map(self.bytes_after, (previous, *ids), ids))

    def decode(self, ids: Sequence[int], previous: int | None = None) -> str:
        """The text that `ids` add to one whose last token is `previous`; invalid UTF-8 becomes U+FFFD. Raises KeyError
        if an id is not in the vocabulary."""
        return self.decode_bytes(ids, previous).decode("utf-8", errors="replace")


# Longer runs of white space are split before the pattern is applied: its look-ahead overflows the regex engine's stack.
_LONGEST_RUN = 4096


class BPETokenizer(Tokenizer):
    """Byte-pair encoding by tiktoken. `ids` maps tiktoken's ranks to the vocabulary's own ids if they differ. `merges`: their
    list, or what computes it when it is needed. `rules`: added tokens and a pre-tokenizer, if they are not GPT-2's."""

    parallel = True  # tiktoken releases the GIL

    def __init__(self, name: str, encoding: tiktoken.Encoding, size: int, end_of_text: int | None,
                 ids: dict[int, int] | None = None, merges: list[Merge] | Callable[[], list[Merge]] | None = None,
                 rules: Rules | None = None) -> None:  # fmt: skip
        self.name = name
        self.encoding = encoding
        self.size = size
        self.end_of_text = end_of_text
        self._merges = merges
        self.rules = rules
        if rules is not None:
            self.fingerprint = rules.fingerprint
        if size == 257 and not encoding._mergeable_ranks.keys() - {bytes([b]) for b in range(256)}:
            self.contents = BYTES_AND_END
        self._special = frozenset({end_of_text} - {None}) if rules is None else rules.special_ids
        self._ids = ids
        # Cache: a table looks the same tokens up again and again.
        self._bytes: dict[int, bytes] = {} if rules is None else {i: t for i, t in rules.texts.items() if i < size}
        self._ranks = {id: rank for rank, id in ids.items()} if ids is not None else None
        self._table: npt.NDArray[np.uint32] | None = None  # `_ids` as an array
        if ids is not None:
            self._table = np.zeros(max(ids) + 1, np.uint32)
            self._table[list(ids)] = list(ids.values())

    @property
    def merges(self) -> list[Merge] | None:
        if callable(self._merges):
            self._merges = self._merges()
        return self._merges

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return self._encode(text, allow_special, prefix=True)

    def encode_after(self, text: str, *, allow_special: bool = False) -> list[int]:
        return self._encode(text, allow_special, prefix=False)

    def _encode(self, text: str, allow_special: bool, prefix: bool) -> list[int]:
        if self.rules is not None:
            return self._array(text, allow_special, prefix).tolist()
        text = clean(text)
        allowed: Any = "all" if allow_special else set()
        ids: list[int] = []
        for part in _without_long_runs(text):
            ids += self.encoding.encode(part, allowed_special=allowed, disallowed_special=())
        return ids if self._ids is None else [self._ids[rank] for rank in ids]

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        return self._array(text, False, True)

    def _array(self, text: str, allow_special: bool, prefix: bool) -> npt.NDArray[np.uint32]:
        found: list[npt.NDArray[np.uint32]] = []
        for part in self._parts(text, allow_special, prefix):
            if isinstance(part, AddedToken):
                if part.id >= self.size:
                    raise UserError(f"the token {part.text[:40]!r} is not in the model's vocabulary; leave it out")
                found.append(np.array([part.id], np.uint32))
                continue
            for short in _without_long_runs(part):
                ranks = self.encoding.encode_to_numpy(short, disallowed_special=())
                found.append(ranks if self._table is None else self._table[ranks])
        return np.concatenate(found) if found else np.zeros(0, np.uint32)

    def _parts(self, text: str, allow_special: bool, prefix: bool) -> Sequence[str | AddedToken]:
        text = clean(text)
        return [text] if self.rules is None else self.rules.parts(text, allow_special, prefix)

    def token_bytes(self, id: int) -> bytes:
        if (known := self._bytes.get(id)) is not None:
            return known
        if self.rules is not None and id >= self.size:  # left out: the model has no row for it
            raise KeyError(id)
        rank = id if self._ranks is None else self._ranks[id]
        try:
            known = self._bytes[id] = self.encoding.decode_single_token_bytes(rank)
        except OverflowError:
            raise KeyError(id) from None
        return known

    def is_special(self, id: int) -> bool:
        return id in self._special

    @property
    def special_texts(self) -> tuple[str, ...]:
        """The special tokens as they can be typed."""
        if self.rules is None:
            return (END_OF_TEXT,)
        return tuple(token.text for token in self.rules.added.tokens if token.special)

    @property
    def start(self) -> int | None:
        return self.end_of_text if self.rules is None else self.rules.begin

    @property
    def starts(self) -> bool:
        return self.rules is not None and self.rules.begins

    def ends(self, id: int) -> bool:
        return id == self.end_of_text if self.rules is None else id in self.rules.ends

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
        for part in self._parts(text, False, True):
            if isinstance(part, AddedToken):
                words.append(part.text)
                continue
            for short in _without_long_runs(part):
                words += (match[0] for match in _compiled(self.pattern).finditer(short))
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
    contents = BYTES

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


# ── vocabularies from merges ─────────────────────────────────────────────────────────────────────────────────────


@lru_cache(1)
def byte_characters() -> dict[int, str]:
    """GPT-2's printable character for each byte, as used in `vocab.json` and `merges.txt` (a space is `Ġ`): printable
    Latin-1 maps to itself, the other 68 bytes to U+0100 onwards, in order."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in set(shown)]
    return {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}


def as_written(token: bytes) -> str:
    """A token's bytes as `vocab.json` writes them, see `byte_characters`."""
    return token.decode("latin-1").translate(byte_characters())  # Latin-1 has each byte as the character of its number


def from_merges(
    name: str, merges: list[tuple[bytes, bytes]], vocab: dict[str, int], special: dict[str, int], where: Path,
    merges_where: Path | None = None, rules: Rules | None = None, size: int | None = None,
) -> BPETokenizer:  # fmt: skip
    """A BPE tokenizer from merges in learned order, `vocab` (token as written → id) and special tokens (text → id), or
    `rules` that have them. `where` has the vocabulary, `merges_where` the merges: they are named in errors. `size`:
    the number of ids, if it is not that of `vocab`. Raises `UserError` if `vocab` lacks a token that the merges make."""
    import tiktoken  # not at the top: characters and words can be trained on without it

    # tiktoken merges the pair whose concatenation has the lowest rank: first the bytes, then the merges in order.
    ranks: dict[bytes, int] = {bytes([b]): i for i, b in enumerate(byte_characters())}
    for left, right in merges:
        ranks.setdefault(left + right, len(ranks))
    ids: dict[int, int] = {}
    for token, rank in ranks.items():
        written = as_written(token)
        if written not in vocab:
            reason = "which is a byte or what one of its merges makes; the file is damaged"
            if merges_where != where:
                reason = "which merges.txt makes; the two files don't belong together"
            raise UserError(f"{where} has no id for {written[:40]!r}, {reason}")
        ids[rank] = vocab[written]
    special_ranks = {text: len(ranks) + i for i, text in enumerate(special)}
    ids |= {rank: special[text] for text, rank in special_ranks.items()}
    pattern = GPT2_PATTERN if rules is None else rules.pre_tokenizer.pattern
    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special_ranks)
    same = all(rank == id for rank, id in ids.items())
    size = max(vocab.values()) + 1 if size is None else size
    end = special.get(END_OF_TEXT) if rules is None else min(rules.ends, default=None)
    return BPETokenizer(name, encoding, size, end, None if same else ids, merges, rules)


def byte_level() -> BPETokenizer:
    """256 bytes and `<|endoftext|>`, no merges: the smallest vocabulary of a model folder."""
    vocab = {character: i for i, character in enumerate(byte_characters().values())} | {END_OF_TEXT: 256}
    return from_merges("byte", [], vocab, {END_OF_TEXT: 256}, Path("byte"))
