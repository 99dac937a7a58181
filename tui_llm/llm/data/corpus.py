"""Tokenize text files to ids on disk, and split off validation data.

A corpus is files and folders of UTF-8 text. It is tokenized once, into two memory-mapped arrays in the user's cache,
keyed by content and vocabulary. The end of every file is held out for validation. A literal `<|endoftext|>` separates
documents, as does the end of a file: both become the special token.

A file that is named several times is trained on as often, but held out once. Memory is bounded: text is read, tokenized
and written about a million characters at a time, several such chunks in parallel if there are cores.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from filelock import Timeout

from tui_llm.common import files as whole
from tui_llm.common import paths, storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import open_foreign, read_json
from tui_llm.llm.data import chunks, corpora
from tui_llm.llm.data.bigrams import bigram_entropy
from tui_llm.llm.data.corpora import files, floor
from tui_llm.llm.data.formats import AUTO, TextFormat
from tui_llm.llm.data.texts import blocks, first_block, size_on_disk
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.llm.tokens.tokenizer import Tokenizer

Ids = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Progress = Callable[[str], None]
_CHUNK = chunks.CHUNK


@dataclass(frozen=True)
class Corpus:
    """A corpus as token ids.

    train, validation: the ids to train on, and those held out.
    bytes_per_token: over both; the bytes of the tokens, not those of the files: separators have none, a line end is one
        byte, and a text that is given twice is counted as often as it is in the tokens.
    unigram_entropy: of the token frequencies in `train`, in nats per token: the best loss of a unigram model.
    bigram_entropy: the best loss of a bigram model (see `bigrams.py`); None if it wasn't counted.
    floor: the entropy rate of the process that generated the text, a lower bound for any model; None if unknown.
    separator: the id that ends each document but the last; None if the vocabulary has none.
    """

    train: Ids
    validation: Ids
    bytes_per_token: float
    unigram_entropy: float
    digest: str
    bigram_entropy: float | None = None
    floor: float | None = None
    separator: int | None = None


def documents(text: str) -> Iterator[str]:
    """The documents between separators, without the blank lines around them."""
    for part in text.split(END_OF_TEXT):
        if part := part.strip("\n"):
            yield part


def load(
    places: Sequence[str | Path],
    tokenizer: Tokenizer,
    validation_fraction: float,
    *,
    block_size: int,
    progress: Progress = lambda _: None,
    how: TextFormat = AUTO,
) -> Corpus:
    """The corpus as ids, from the cache if the same text was tokenized before.

    places: paths, URLs, and names in `corpora.NAMES`.
    progress: called with a message a few times a second; an exception that it raises ends the work.
    how: the files' format, and the field that has the text.

    Raises `UserError` if a file can't be used, the disk is full, or the corpus is too small for one block of
    `block_size` tokens in each of training and validation data.
    """
    names = files(places, progress)
    hashes = [_hash(path, how, progress) for path in names]
    digest = _digest(hashes, tokenizer, validation_fraction)
    folder = paths.cache_dir() / "corpora" / digest[:32]
    if not _whole(folder):
        _fill(
            folder,
            [_CorpusFile(path, how, one) for path, one in zip(names, hashes, strict=True)],
            tokenizer,
            validation_fraction,
            digest,
            progress,
        )
    facts = read_json(folder / "corpus.json")
    if min(facts["train"], facts["validation"]) <= block_size:
        raise corpora.too_small(facts["train"], facts["validation"], block_size)
    arrays = [np.memmap(folder / f"{part}.bin", dtype=facts["dtype"], mode="r") for part in ("train", "validation")]
    counted = dict(facts)
    if not isinstance(facts.get("bigram_entropy"), float):  # new, or written by an earlier version
        facts["bigram_entropy"] = bigram_entropy(arrays[0], tokenizer.size, progress)
    if not isinstance(facts.get("bytes"), int):  # written by an earlier version
        facts["bytes"] = sum(
            _bytes_of(tokenizer, counts) for array in arrays for counts in _counts(array, tokenizer.size)
        )
    if facts != counted:
        with suppress(UserError):  # read-only cache: it is counted again next time
            write_json(folder / "corpus.json", facts)
    return Corpus(
        arrays[0],
        arrays[1],
        facts["bytes"] / (facts["train"] + facts["validation"]),
        facts["unigram_entropy"],
        digest,
        facts["bigram_entropy"],
        floor(places, tokenizer.encode, separator=tokenizer.end_of_text is not None),
        tokenizer.end_of_text,
    )


def check_size(
    places: Sequence[str | Path], tokenizer: Tokenizer, fraction: float, block_size: int, how: TextFormat = AUTO
) -> None:
    """Raises `UserError` as `load` does if the corpus is too small. Tokenizes only as much text as is needed to know."""

    def tokens(path: Path) -> Iterator[int]:
        separators = tokenizer.end_of_text is not None
        for chunk in _chunks(blocks(path, how=how)):
            yield int(separators) if chunk is None else len(tokenizer.encode_array(chunk))

    corpora.check_counts([tokens(path) for path in files(places)], fraction, block_size)


def _hash(path: Path, how: TextFormat, progress: Progress) -> bytes:
    """A key of the file's text: the SHA-256 of its bytes, or, for records, of format, field and that."""
    first_block(path, how)  # reject binary files before reading them whole
    digest = hashlib.sha256()
    with open_foreign(path) as file:
        while data := file.read(1 << 24):
            digest.update(data)
            progress("reading the corpus")
    return _file_key(path, how, digest.digest())


def _file_key(path: Path, how: TextFormat, digest: bytes) -> bytes:
    return hashlib.sha256(f"{key}\0".encode() + digest).digest() if (key := how.key(path)) else digest


def _digest(hashes: list[bytes], tokenizer: Tokenizer, fraction: float) -> str:
    """A key that depends on the text, its order, the vocabulary and the split, but not on the files' paths."""
    digest = hashlib.sha256(f"1 {fraction} {tokenizer.name} {tokenizer.size} {_CHUNK}{tokenizer.fingerprint}".encode())
    for probe in range(0, tokenizer.size, max(1, tokenizer.size // 512)):
        try:
            digest.update(tokenizer.token_bytes(probe) + b"\xff")
        except KeyError:
            digest.update(b"\xfe")
    for one in hashes:
        digest.update(one)
    return digest.hexdigest()


# ── filling the cache ────────────────────────────────────────────────────────────────────────────────────────────


def _whole(folder: Path) -> bool:
    """Whether the cache entry is complete: corpus.json is written last and has the lengths of the arrays."""
    try:
        facts = read_json(folder / "corpus.json")
        width = np.dtype(facts["dtype"]).itemsize
        return all((folder / f"{part}.bin").stat().st_size == facts[part] * width for part in ("train", "validation"))
    except (UserError, OSError, KeyError, TypeError):
        return False


@dataclass(frozen=True, slots=True)
class _CorpusFile:
    """A file of the corpus, with the key of its text."""

    path: Path
    how: TextFormat
    key: bytes


def _fill(
    folder: Path,
    sources: list[_CorpusFile],
    tokenizer: Tokenizer,
    fraction: float,
    digest: str,
    progress: Progress,
) -> None:
    """Tokenize into `folder`. A lock file prevents two workers from doing the same work: the second one waits."""
    try:
        storage.make_folders(folder)
        lock = storage.Lock(folder / "lock")
        while not _acquired(lock):
            progress("waiting for another run, which is tokenizing the same text")
        try:
            if _whole(folder):
                return
            for leftover in folder.glob(".tokens-*"):  # left by killed workers of an earlier version
                storage.rmtree(leftover, ignore_errors=True)
            with whole.aside(folder / "train.bin") as part:
                facts = _TokenWriter(part.parent, tokenizer, fraction, progress).run(sources)
                for name in ("train.bin", "validation.bin"):
                    storage.replace(part.with_name(name), folder / name)
            storage.sync_folder(folder)
            write_json(folder / "corpus.json", {**facts, "digest": digest})
        finally:
            lock.release()
    except OSError as error:
        raise UserError(
            f"can't write the tokenized corpus to {folder}: {error.strerror or error}; free some space there or set TUI_LLM_HOME "
            "to another folder"
        ) from error


def _acquired(lock: storage.Lock) -> bool:
    try:
        lock.acquire(timeout=0.2)
        return True
    except Timeout:
        return False


@dataclass
class _TokenWriter:
    """Writes `train.bin` and `validation.bin` into `folder`, one file of the corpus after the other."""

    folder: Path
    tokenizer: Tokenizer
    fraction: float
    progress: Progress
    read: int = 0  # bytes of the files
    total: int = 0
    text_bytes: int = 0  # of the tokens
    sizes: dict[str, int] = field(default_factory=lambda: {"train": 0, "validation": 0})
    # A file's key → its tokens[start:stop] in train.bin.
    seen: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def run(self, sources: list[_CorpusFile]) -> dict[str, Any]:
        self.dtype = np.dtype(np.uint16 if self.tokenizer.size <= 1 << 16 else np.uint32)
        self.counts = np.zeros(self.tokenizer.size, np.int64)
        sizes = [size_on_disk(source.path) for source in sources]
        self.total = sum(sizes)
        with (
            storage.open_file(self.folder / "train.bin", "w+b") as train,
            storage.open_file(self.folder / "validation.bin", "wb") as validation,
        ):
            for source, size in zip(sources, sizes, strict=True):
                if source.key in self.seen:
                    start, stop = self.seen[source.key]
                    self._copy(train, train, start, stop, "train")
                    self.read += size
                else:
                    self._file(source, train, validation)
            for file in (train, validation):
                storage.sync(file)
        if not self.sizes["train"]:
            raise UserError(
                f"the corpus is empty: there is no text in {', '.join(str(source.path) for source in sources[:3])}; give another file"
            )
        share = self.counts[self.counts > 0] / self.sizes["train"]
        return {"dtype": self.dtype.name, **self.sizes, "bytes": self.text_bytes,
                "unigram_entropy": abs(-math.fsum((share * np.log(share)).tolist()))}  # fmt: skip

    def _file(self, source: _CorpusFile, train: BinaryIO, validation: BinaryIO) -> None:
        """Tokenize one file into a temporary file first: the held-out part is at its end, so its start is known only
        afterwards."""
        hashed = hashlib.sha256()
        with storage.temporary_file(self.folder) as aside:
            count = 0
            read = blocks(source.path, lambda data: self._record_block(data, hashed), source.how)
            for ids in self._encoded(_chunks(read)):
                aside.write(ids.astype(self.dtype).tobytes())
                count += len(ids)
            if _file_key(source.path, source.how, hashed.digest()) != source.key:
                raise UserError(f"{source.path} was changed while it was being read; start again when it is whole")
            cut = count - corpora.held_out(count, self.fraction)
            begin = self.sizes["train"]
            self._copy(aside, train, 0, cut, "train")
            self._copy(aside, validation, cut, count, "validation")
            self.seen[source.key] = begin, begin + cut

    def _encoded(self, chunks: Iterator[str | None]) -> Iterator[npt.NDArray[np.uint32]]:
        """The ids of all chunks, in order. Tokenizes in one thread per core if the tokenizer supports it; reads ahead
        only as much text as keeps the threads busy."""
        threads = cores() if self.tokenizer.parallel else 1
        waiting: deque[Future[npt.NDArray[np.uint32]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            try:
                for portion in _portions(chunks):
                    waiting.append(pool.submit(self._ids, portion))
                    if len(waiting) > threads + 1:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:  # on an error or a stop: finish running tasks, cancel the rest
                pool.shutdown(wait=True, cancel_futures=True)

    def _ids(self, portion: list[str | None]) -> npt.NDArray[np.uint32]:
        end = self.tokenizer.end_of_text
        separator = np.array([] if end is None else [end], np.uint32)
        return np.concatenate([separator if c is None else self.tokenizer.encode_array(c) for c in portion])

    def _record_block(self, data: bytes, hashed: Any) -> None:
        hashed.update(data)
        self.read += len(data)
        self.progress(f"tokenizing: {self.read / 1e6:.1f} of {self.total / 1e6:.1f} MB")

    def _copy(self, source: BinaryIO, target: BinaryIO, start: int, stop: int, part: str) -> None:
        """Append tokens[start:stop] of `source` to `target` and count them."""
        width = self.dtype.itemsize
        while start < stop:
            source.seek(start * width)
            data = source.read(min(stop - start, _CHUNK) * width)
            if len(data) < width:
                raise OSError("a temporary file has lost its end")
            target.seek(0, os.SEEK_END)
            target.write(data)
            ids = np.frombuffer(data, self.dtype)
            counts = np.bincount(ids, minlength=len(self.counts))
            self.text_bytes += _bytes_of(self.tokenizer, counts)
            if part == "train":
                self.counts += counts
            self.sizes[part] += len(ids)
            start += len(ids)


def _counts(ids: Ids, size: int) -> Iterator[npt.NDArray[np.int64]]:
    """How often each of `size` ids occurs, part by part."""
    for start in range(0, len(ids), _CHUNK):
        yield np.bincount(ids[start : start + _CHUNK], minlength=size)


def _bytes_of(tokenizer: Tokenizer, counts: npt.NDArray[np.int64]) -> int:
    """The bytes of so many tokens of each id; special tokens have none."""
    ids = np.flatnonzero(counts).tolist()
    return sum(int(counts[id]) * len(tokenizer.token_bytes(id)) for id in ids if not tokenizer.is_special(id))


def _portions(chunks: Iterator[str | None]) -> Iterator[list[str | None]]:
    """Group chunks into portions of about a million characters, enough work for a thread."""
    portion: list[str | None] = []
    size = 0
    for chunk in chunks:
        portion.append(chunk)
        size += len(chunk or "")
        if size >= _CHUNK:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chunks(texts: Iterator[str]) -> Iterator[str | None]:
    return chunks.split(texts, _CHUNK)
