"""Find text files and read them in blocks, never whole: the one reader of whatever is read as a corpus.

Plain text, and records (see `records.py`), whose texts are separated by `<|endoftext|>`. Standard library only, but for
Parquet and zstd.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import check_foreign
from tui_llm.llm.data import formats, records
from tui_llm.llm.data.formats import AUTO, TextFormat
from tui_llm.llm.data.packed import Damaged, open_packed
from tui_llm.llm.tokens.text import END_OF_TEXT, clean

BLOCK = 1 << 20  # bytes read at a time
_GLANCE = 1 << 16  # bytes at the beginning that are checked for zero bytes
_SUFFIXES = {
    ".txt",
    ".text",
    ".md",
    ".rst",
    ".py",
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".ndjson",
    ".parquet",
    ".html",
    ".xml",
    ".tex",
    ".org",
    "",
}


def files(places: list[Path]) -> list[Path]:
    """The text files of `places`; folders are walked in sorted order. Raises `UserError` if there is nothing to
    read."""
    found: list[Path] = []
    for place in places:
        try:
            found += _inside(place) if place.is_dir() else [_file(place)]
        except OSError as error:  # name too long, folder not accessible
            raise UserError(f"can't read {place}: {error.strerror or error}; give another text") from error
    return found


def _inside(folder: Path) -> list[Path]:
    # Skip hidden files: .git, .venv, an editor's backup.
    inside = sorted(
        p for p in folder.rglob("*")
        if _is_text_name(p) and not any(part.startswith(".") for part in p.relative_to(folder).parts) and p.is_file()
    )  # fmt: skip
    if not inside:
        raise UserError(f"there are no text files in {folder}; name a .txt file or a folder with some")
    return inside


def _is_text_name(path: Path) -> bool:
    inner = formats.suffix(path)
    return inner in _SUFFIXES and bool(inner or not path.suffix)


def _file(place: Path) -> Path:
    if place.is_file():
        return place
    if place.exists():
        raise UserError(f"{place} is neither a file nor a folder; name a text file")
    raise UserError(f"there is no file or folder {place}; give the path of a text")


def size_on_disk(path: Path) -> int:
    """The bytes of a file. Raises `UserError` if it has gone since it was found, as another program's may."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}; give another text") from error


def blocks(path: Path, saw: Callable[[bytes], object] = lambda _: None, how: TextFormat = AUTO) -> Iterator[str]:
    """The file's text, about a million bytes at a time; `saw` gets the bytes as they are on disk.

    Plain text is decoded as UTF-8 (byte-order mark dropped, CRLF as LF). Of records, each one's text (CRLF as LF, lone
    surrogates as U+FFFD) is followed by `<|endoftext|>`. Raises `UserError` if the file can't be read or isn't text.
    """
    kind = how.of(path)
    if kind == "text":
        yield from _plain(path, saw, sniff=how.name == "auto")
        return
    waiting: list[str] = []
    size = 0
    for text in records.texts(path, kind, how.field, saw):
        waiting += clean(text).replace("\r\n", "\n"), END_OF_TEXT
        size += len(text)
        if size >= BLOCK:
            yield "".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield "".join(waiting)


def _plain(path: Path, saw: Callable[[bytes], object], *, sniff: bool) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    read, lines, carriage_return = 0, 0, ""
    try:
        with open_packed(path, saw) as file:
            while data := file.read(BLOCK):
                if read < _GLANCE and b"\0" in data[: _GLANCE - read]:
                    if not read and data.startswith(b"PAR1"):
                        raise UserError(f"{path} is a Parquet file; read it with --format parquet")
                    raise UserError(f"{path} is not text (it has zero bytes); give plain UTF-8 text")
                read += len(data)
                text = carriage_return + decoder.decode(data)
                if sniff and read == len(data):
                    check_json(path, text)
                lines += text.count("\n")
                carriage_return = "\r" if text.endswith("\r") else ""  # the line feed may be in the next block
                yield text.removesuffix("\r").replace("\r\n", "\n")
        yield carriage_return + decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        # The decoder's offsets are relative to its last input, which ends at `read`.
        place = read - len(error.object) + error.start
        raise UserError(f"{path} is not UTF-8 text (byte {place:,}); convert it, or give another file") from error
    except Damaged as error:
        raise UserError(f"{error} (after line {lines})") from error


# The beginning of an object with a key; of an array of objects, strings or arrays of them.
_JSON = re.compile(r'\s*(?:\{\s*"(?:[^"\\\n]|\\.)*"\s*:|\[\s*(?:[\[{]\s*)*"(?:[^"\\\n]|\\.)*"\s*[],:])')


def check_json(path: Path, text: str) -> None:
    """Raises `UserError` if a text begins as JSON does: its braces and keys would be trained on."""
    if _JSON.match(text[:_GLANCE]):
        kind = "json" if text.lstrip().startswith("[") else "jsonl"
        raise UserError(
            f"{path} looks like JSON; read the texts in it with --format {kind}, or the file as it is with --format text"
        )


def read_text(path: Path, most: int | None = None, how: TextFormat = AUTO) -> str:
    """The whole file's text at once. Raises `UserError` as `blocks` does, and if the file or, unpacked, its text has more
    than `most` bytes."""
    if most is None:
        return "".join(blocks(path, how=how))
    check_foreign(path, most)
    parts: list[str] = []
    size = 0
    for block in blocks(path, how=how):
        parts.append(block)
        size += len(block)
        if size > most:
            raise UserError(f"{path} unpacks to more than {most:,} bytes; give a smaller file")
    return "".join(parts)


def first_block(path: Path, how: TextFormat = AUTO) -> str:
    """The file's first block. Raises `UserError` as `blocks` does."""
    return next(blocks(path, how=how), "")


def check(places: list[Path], how: TextFormat = AUTO) -> None:
    """Check the beginning of every file. Raises `UserError` if one can't be trained on, or none has any text."""
    names = files(places)
    if not sum([_has_text(path, how) for path in names]):
        raise UserError(
            f"the corpus is empty: there is no text in {', '.join(str(p) for p in names[:3])}; give another file"
        )


def _has_text(path: Path, how: TextFormat) -> bool:
    """Whether there is anything but white space and separators; reads up to the first text, at least one block."""
    return any(block.replace(END_OF_TEXT, "").strip() for block in blocks(path, how=how))
