"""Which file of a corpus a training token comes from, and at which byte of it.

Nothing is stored for this. The tokens of a text spell it out, so a token's place follows from the lengths of the tokens
before it. Where they do not, because a vocabulary changes the text, only that is known.

A file's text is what training reads of it: the bytes, unpacked; of records, their texts.
"""

from __future__ import annotations

import codecs
import hashlib
import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tui_llm.common.foreign_files import open_foreign
from tui_llm.facts.token_place import TokenPlace
from tui_llm.llm.data import chunks, corpora, formats, records, texts
from tui_llm.llm.data.corpus import Corpus, Ids
from tui_llm.llm.data.formats import TextFormat
from tui_llm.llm.data.packed import open_packed
from tui_llm.llm.tokens.text import END_OF_TEXT, clean
from tui_llm.llm.tokens.tokenizer import Tokenizer

_BLOCK = 1 << 16  # tokens whose lengths are summed at once
UNSPELLED = "the tokens of this vocabulary don't spell the text out, so that places in it are unknown"


@dataclass(frozen=True, slots=True)
class _Segment:
    """The tokens [start, stop) of the training data, which are the first ones of `file`."""

    start: int
    stop: int
    file: int


class TokenPlaces:
    """Finds the places of training tokens in the files of a corpus.

    `problem` says why places are unknown; empty if they are known. `progress` is called with a message now and then.
    Raises `UserError` if a file can't be read any more.
    """

    def __init__(
        self,
        places: Sequence[str],
        corpus: Corpus,
        tokenizer: Tokenizer,
        fraction: float,
        how: TextFormat,
        progress: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._files, self._how, self._end = corpora.files(places), how, tokenizer.end_of_text
        self._lengths = _lengths(tokenizer)
        self._train = _LengthSums(corpus.train, self._lengths)
        self._validation = _LengthSums(corpus.validation, self._lengths)
        self.problem = ""
        self._segments: list[_Segment] = []
        self._segment(fraction, progress)

    def _segment(self, fraction: float, progress: Callable[[str], object]) -> None:
        """Finds each file's tokens: as many as spell its text out, of which the last ones are held out."""
        train = validation = 0
        seen: dict[bytes, tuple[int, int]] = {}
        keys = _keys(self._files, self._how)
        for number, path in enumerate(self._files):
            progress(f"finding the places of the rows: file {number + 1:,} of {len(self._files):,}")
            if keys[number] in seen:
                file, count = seen[keys[number]]
                self._segments.append(_Segment(train, train + count, file))
                train += count
                continue
            length = sum(self._length(chunk) for _, chunk in self._chunks(path))
            low, high = 0, self._train.count - train + self._validation.count - validation
            while low < high:
                middle = (low + high) // 2
                if self._spelled(train, validation, middle, fraction) < length:
                    low = middle + 1
                else:
                    high = middle
            held_out = corpora.held_out(low, fraction)
            if self._spelled(train, validation, low, fraction) != length:
                self.problem = UNSPELLED
                return
            self._segments.append(_Segment(train, train + low - held_out, number))
            seen[keys[number]] = number, low - held_out
            train, validation = train + low - held_out, validation + held_out
        if (train, validation) != (self._train.count, self._validation.count):
            self.problem = UNSPELLED

    def _spelled(self, train: int, validation: int, count: int, fraction: float) -> int:
        """The length of `count` tokens, of which the last ones are held out, from these places on."""
        held_out = corpora.held_out(count, fraction)
        most = self._train.count, self._validation.count
        stops = min(train + count - held_out, most[0]), min(validation + held_out, most[1])
        missing = train + count - held_out - stops[0] + validation + held_out - stops[1]
        return self._train.between(train, stops[0]) + self._validation.between(validation, stops[1]) + missing

    def _length(self, chunk: str | None) -> int:
        return int(self._end is not None) if chunk is None else len(chunk.encode())

    def _chunks(self, path: Path) -> Iterator[tuple[int, str | None]]:
        return chunks.placed(texts.blocks(path, how=self._how), chunks.CHUNK)

    def parts(self, start: int, stop: int) -> list[int]:
        """Where the tokens [start, stop) of the training data begin, and where among them another file begins."""
        begins = [segment.start for segment in self._segments if segment.stop > segment.start]
        return [start, *(one for one in begins if start < one < stop)]

    def row_parts(self, row: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        """Where in a row its parts begin, and with which training tokens: the tokens at the places `row` of the training data,
        of which the neighbours of one part are neighbours there and of one file."""
        cuts = [0, *(np.flatnonzero(np.diff(row) != 1) + 1).tolist(), len(row)]
        found = []
        for first, last in itertools.pairwise(cuts):
            start = int(row[first])
            found += [(first + token - start, token) for token in self.parts(start, start + last - first)]
        return found

    def file(self, token: int) -> str:
        """The file of a training token."""
        return str(self._files[self._segment_of(token).file])

    def _segment_of(self, token: int) -> _Segment:
        return self._segments[bisect_right(self._segments, token, key=lambda segment: segment.start) - 1]

    def find(self, tokens: Sequence[int]) -> dict[int, TokenPlace]:
        """The place of each of the training tokens with these numbers; empty if places are unknown."""
        if self.problem:
            return {}
        wanted: dict[int, list[tuple[int, int]]] = {}  # by file: (length before the token, its number)
        for token in sorted(set(tokens)):
            segment = self._segment_of(token)
            wanted.setdefault(segment.file, []).append((self._train.between(segment.start, token), token))
        found: dict[int, TokenPlace] = {}
        for file, those in wanted.items():
            path, those = self._files[file], sorted(those)
            characters = self._characters(path, [length for length, _ in those])
            places = self._places(path, characters)
            found |= {token: place for (_, token), place in zip(those, places, strict=True)}
        return found

    def _characters(self, path: Path, lengths: list[int]) -> list[tuple[int, int]]:
        """For each of the rising `lengths` of tokens: the characters of the text before it, and the bytes after those."""
        found: list[tuple[int, int]] = []
        before = 0
        for at, chunk in self._chunks(path):
            length = self._length(chunk)
            while len(found) < len(lengths) and lengths[len(found)] < before + length:
                if chunk is None:
                    found.append((at, 0))
                    continue
                head = chunk.encode()[: lengths[len(found)] - before]
                whole = head.decode(errors="ignore")
                found.append((at + len(whole), len(head) - len(whole.encode())))
            before += length
            if len(found) == len(lengths):
                break
        return found

    def _places(self, path: Path, characters: list[tuple[int, int]]) -> list[TokenPlace]:
        name = str(path)
        if self._how.of(path) == "text":
            offsets = _offsets(path, [at for at, _ in characters])
            return [TokenPlace(name, offset + extra) for offset, (_, extra) in zip(offsets, characters, strict=True)]
        found: list[TokenPlace] = []
        end = 0
        for number, (offset, text) in enumerate(_records(path, self._how), 1):
            end += len(text) + len(END_OF_TEXT)
            while len(found) < len(characters) and characters[len(found)][0] < end:
                found.append(TokenPlace(name, offset, number))
            if len(found) == len(characters):
                break
        return found


def _lengths(tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
    """The bytes of each token; 1 for the separator, and for ids without bytes, which do not occur."""
    found = np.ones(tokenizer.size, np.int64)
    for id in range(tokenizer.size):
        if not tokenizer.is_special(id):
            try:
                found[id] = max(1, len(tokenizer.token_bytes(id)))
            except KeyError:
                continue
    return found


class _LengthSums:
    """Sums of the tokens' lengths, of any range of `ids`."""

    def __init__(self, ids: Ids, lengths: npt.NDArray[np.int64]) -> None:
        self._ids, self._lengths, self.count = ids, lengths, len(ids)
        sums = [int(lengths[ids[at : at + _BLOCK]].sum()) for at in range(0, len(ids), _BLOCK)]
        self._before = np.concatenate([[0], np.cumsum(sums, dtype=np.int64)])

    def _upto(self, stop: int) -> int:
        block = stop // _BLOCK
        return int(self._before[block]) + int(self._lengths[self._ids[block * _BLOCK : stop]].sum())

    def between(self, start: int, stop: int) -> int:
        return self._upto(stop) - self._upto(start)


def _keys(files: list[Path], how: TextFormat) -> list[bytes]:
    """A key of each file's text, equal for equal ones: those are tokenized once."""
    sizes = [texts.size_on_disk(path) for path in files]
    keys = []
    for number, (path, size) in enumerate(zip(files, sizes, strict=True)):
        if sizes.count(size) == 1:
            keys.append(f"{number}".encode())
            continue
        digest = hashlib.sha256(how.key(path).encode())
        with open_foreign(path) as file:
            while data := file.read(1 << 24):
                digest.update(data)
        keys.append(digest.digest())
    return keys


def _offsets(path: Path, characters: list[int]) -> list[int]:
    """The byte of a plain text at which each of the rising `characters` begins: those that `texts.blocks` gives."""
    found: list[int] = []
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    with open_packed(path) as file:
        data = file.read(texts.BLOCK)
        read, given = 3 if data.startswith(codecs.BOM_UTF8) else 0, 0  # bytes and characters before `text`
        waiting = ""
        while len(found) < len(characters):
            text = waiting + decoder.decode(data, final=not data)
            waiting = "\r" if data and text.endswith("\r") else ""  # the line feed may be in the next block
            text = text.removesuffix("\r") if waiting else text
            # A line end is one character, of one byte or two.
            ends = [match.start() - number for number, match in enumerate(re.finditer("\r\n", text))]
            count = len(text) - len(ends)
            while len(found) < len(characters) and (characters[len(found)] < given + count or not data):
                at = characters[len(found)] - given
                found.append(read + len(text[: at + bisect_left(ends, at)].encode()))
            read, given = read + len(text.encode()), given + count
            data = file.read(texts.BLOCK) if data else data
    return found


def _records(path: Path, how: TextFormat) -> Iterator[tuple[int | None, str]]:
    """Each record's text as `texts.blocks` gives it, with the byte at which its line begins, where that is known."""
    kind, line, read = how.of(path), 0, 0

    def saw(data: bytes) -> None:
        nonlocal line, read
        line, read = read, read + len(data)

    by_line = kind == "jsonl" and path.suffix.lower() not in formats.PACKED
    for text in records.texts(path, kind, how.field, saw):
        yield line if by_line else None, clean(text).replace("\r\n", "\n")
