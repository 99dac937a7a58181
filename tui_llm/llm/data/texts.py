"""Find text files and read them in blocks, never whole. Standard library only."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import check_foreign, open_foreign

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
        if p.suffix.lower() in _SUFFIXES and not any(part.startswith(".") for part in p.relative_to(folder).parts) and p.is_file()
    )  # fmt: skip
    if not inside:
        raise UserError(f"there are no text files in {folder}; name a .txt file or a folder with some")
    return inside


def _file(place: Path) -> Path:
    if place.is_file():
        return place
    if place.exists():
        raise UserError(f"{place} is neither a file nor a folder; name a text file")
    raise UserError(f"there is no file or folder {place}; give the path of a text to train on")


def blocks(path: Path, saw: Callable[[bytes], object] = lambda _: None) -> Iterator[str]:
    """The file's text, decoded as UTF-8 (byte-order mark dropped, CRLF as LF), about a million bytes at a time; `saw`
    gets the raw bytes. Raises `UserError` if it can't be read or isn't text."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    read, carriage_return = 0, ""
    try:
        with open_foreign(path) as file:
            while data := file.read(BLOCK):
                if read < _GLANCE and b"\0" in data[: _GLANCE - read]:
                    raise UserError(f"{path} is not text (it has zero bytes); give plain UTF-8 text")
                saw(data)
                read += len(data)
                text = carriage_return + decoder.decode(data)
                carriage_return = "\r" if text.endswith("\r") else ""  # the line feed may be in the next block
                yield text.removesuffix("\r").replace("\r\n", "\n")
        yield carriage_return + decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        # The decoder's offsets are relative to its last input, which ends at `read`.
        place = read - len(error.object) + error.start
        raise UserError(f"{path} is not UTF-8 text (byte {place:,}); convert it, or give another file") from error


def read_text(path: Path, most: int | None = None) -> str:
    """The whole file at once. Raises `UserError` as `blocks` does, and if it has more than `most` bytes."""
    if most is not None:
        check_foreign(path, most)
    return "".join(blocks(path))


def first_block(path: Path) -> str:
    """The file's first block. Raises `UserError` as `blocks` does."""
    return next(blocks(path), "")


def check(places: list[Path]) -> None:
    """Check the beginning of every file. Raises `UserError` if one can't be trained on, or all are empty."""
    names = files(places)
    if not sum([len(first_block(path)) > 0 for path in names]):
        raise UserError(
            f"the corpus is empty: there is no text in {', '.join(str(p) for p in names[:3])}; give another file"
        )
