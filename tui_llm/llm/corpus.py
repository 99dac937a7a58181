"""Text files → token ids on the disk, and which of them are held out.

A corpus is files and folders of UTF-8 text. It is tokenised once, into two memory-mapped arrays in the user's cache,
keyed by content and vocabulary. Validation tokens are the end of every file, never seen in training. A literal
`<|endoftext|>` in a corpus separates documents, as does the end of a file: both become the special token.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tui_llm import paths
from tui_llm.errors import UserError
from tui_llm.files import read_json, write_json
from tui_llm.llm.tokenizer import END_OF_TEXT, Tokenizer

Ids = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
_CHUNK = 1 << 20  # characters tokenised at a time
_SUFFIXES = {".txt", ".text", ".md", ".rst", ".py", ".csv", ".tsv", ".json", ".jsonl", ".html", ".xml", ".tex", ".org", ""}


@dataclass(frozen=True)
class Corpus:
    """Token ids: `train` to learn from and `validation`, held out. `bytes_per_token` is over both;
    `unigram_entropy`, in nats per token, is what a model that knows only token frequencies could reach on `train`."""

    train: Ids
    validation: Ids
    bytes_per_token: float
    unigram_entropy: float
    digest: str


def files(places: list[Path]) -> list[Path]:
    """The text files of `places`, folders walked in order. Raises `UserError` where there is nothing to read."""
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(
                p for p in place.rglob("*")
                if p.is_file() and p.suffix.lower() in _SUFFIXES and not any(part.startswith(".") for part in p.relative_to(place).parts)
            )  # fmt: skip
            if not inside:
                raise UserError(f"there are no text files in {place}; name a .txt file or a folder with some")
            found += inside
        elif place.is_file():
            found.append(place)
        elif place.exists():
            raise UserError(f"{place} is neither a file nor a folder; name a text file")
        else:
            raise UserError(f"there is no file or folder {place}; give the path of a text to train on")
    return found


def read_text(path: Path) -> str:
    """The file as UTF-8. Raises `UserError` where it can't be read or isn't text."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}") from error
    if b"\0" in data[:65536]:
        raise UserError(f"{path} is not text (it has zero bytes); give plain UTF-8 text")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); convert it, or give another file") from error


def documents(text: str) -> Iterator[str]:
    """The texts between separators, without them and the blank lines around."""
    for part in text.split(END_OF_TEXT):
        if part := part.strip("\n"):
            yield part


def _chunks(text: str) -> Iterator[str]:
    """`text` in parts of about a million characters, cut before a blank, where nearly no token straddles."""
    start = 0
    while start < len(text):
        end = start + _CHUNK
        if end < len(text):
            blank = text.rfind("\n", start, end)
            end = blank if blank > start else end
        yield text[start:end]
        start = end


def load(
    places: list[Path], tokenizer: Tokenizer, validation_fraction: float, *, block_size: int, progress: Callable[[str], None] = lambda _: None
) -> Corpus:
    """The corpus as ids, from the cache where the same text was tokenised before.

    Raises `UserError` where a file can't be used or the corpus is too small for one block of `block_size` tokens to
    train on and one to validate on.
    """
    names = files(places)
    digest = _digest(names, tokenizer, validation_fraction)
    folder = paths.cache_dir() / "corpora" / digest[:32]
    if not (folder / "corpus.json").is_file():
        _tokenise(names, tokenizer, validation_fraction, folder, digest, progress)
    facts = read_json(folder / "corpus.json")
    dtype = np.dtype(facts["dtype"])
    if min(facts["train"], facts["validation"]) <= block_size:
        total = facts["train"] + facts["validation"]
        raise UserError(
            f"the corpus is too small: {total:,} tokens, of which {facts['validation']:,} are held out; a block of {block_size} needs "
            f"more than {block_size} in each: give more text or a smaller block size"
        )
    arrays = [np.memmap(folder / f"{part}.bin", dtype=dtype, mode="r") for part in ("train", "validation")]
    return Corpus(arrays[0], arrays[1], facts["bytes_per_token"], facts["unigram_entropy"], digest)


def _digest(names: list[Path], tokenizer: Tokenizer, fraction: float) -> str:
    """Changes with the text, its order, the vocabulary or the split; not with where the files lie."""
    digest = hashlib.sha256(f"1 {fraction} {tokenizer.name} {tokenizer.size} {_BOUND}".encode())
    for probe in range(0, tokenizer.size, max(1, tokenizer.size // 512)):
        try:
            digest.update(tokenizer.token_bytes(probe) + b"\xff")
        except KeyError:
            digest.update(b"\xfe")
    for path in names:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"can't read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


_BOUND = _CHUNK


def _tokenise(names: list[Path], tokenizer: Tokenizer, fraction: float, folder: Path, digest: str, progress: Callable[[str], None]) -> None:
    dtype = np.dtype(np.uint16 if tokenizer.size <= 1 << 16 else np.uint32)
    total = sum(path.stat().st_size for path in names)
    counts: Counter[int] = Counter()
    sizes = {"train": 0, "validation": 0}
    read = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't write {folder}: {error.strerror or error}; set TUI_LLM_HOME to another folder") from error
    parts = {part: folder / f".{part}.{os.getpid()}.part" for part in sizes}
    try:
        with parts["train"].open("wb") as train, parts["validation"].open("wb") as validation:
            for path in names:
                progress(f"tokenising: {read / 1e6:.1f} of {total / 1e6:.1f} MB")
                ids = np.array(_encode_file(path, tokenizer), dtype=dtype)
                cut = len(ids) - max(1, round(len(ids) * fraction)) if len(ids) else 0
                train.write(ids[:cut].tobytes())
                validation.write(ids[cut:].tobytes())
                sizes["train"] += cut
                sizes["validation"] += len(ids) - cut
                counts.update(dict(zip(*(a.tolist() for a in np.unique(ids[:cut], return_counts=True)), strict=True)))
                read += path.stat().st_size
        if not sizes["train"]:
            raise UserError(f"the corpus is empty: there is no text in {', '.join(str(p) for p in names[:3])}")
        for part, path in parts.items():
            path.replace(folder / f"{part}.bin")
    except OSError as error:
        raise UserError(f"can't write the tokenised corpus to {folder}: {error.strerror or error}; free some space") from error
    finally:
        for path in parts.values():
            path.unlink(missing_ok=True)
    n = sizes["train"]
    write_json(
        folder / "corpus.json",
        {"dtype": dtype.name, **sizes, "bytes_per_token": total / (sizes["train"] + sizes["validation"]), "digest": digest,
         "unigram_entropy": -sum(c / n * math.log(c / n) for c in counts.values())},
    )  # fmt: skip


def _encode_file(path: Path, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = []
    for document in documents(read_text(path)):
        for chunk in _chunks(document):
            ids += tokenizer.encode(chunk)
        if tokenizer.end_of_text is not None:
            ids.append(tokenizer.end_of_text)
    return ids
