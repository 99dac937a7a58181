"""Open a file's bytes, unpacked if it is compressed with gzip or zstd, in bounded memory.

zstd is read by Python's own `compression.zstd` (since 3.14), before by its backport (extra `[corpora]`).
"""

from __future__ import annotations

import gzip
import importlib
import io
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_foreign
from tui_llm.llm.data.formats import PACKED

Saw = Callable[[bytes], object]
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_NOT_READ = {b"PK\x03\x04": "zip", b"BZh91AY&SY": "bzip2", b"\xfd7zXZ\x00": "xz", b"7z\xbc\xaf\x27\x1c": "7z", b"\x04\x22\x4d\x18": "lz4"}  # fmt: skip
_BLOCK = 1 << 16


class Damaged(UserError):
    """The compressed data ends early or is not valid."""


@contextmanager
def open_packed(path: Path, saw: Saw = lambda _: None) -> Iterator[BinaryIO]:
    """Open the file at `path` for reading, unpacked; `saw` gets its bytes as they are on disk, all of them once it has
    been read to its end.

    Reading stops with a `UserError` at the number of bytes that is free on the cache's disk: ids take about as much as the
    text, and a small file can unpack to terabytes. Raises `UserError`; `Damaged` if the compressed data is cut short.
    """
    with open_foreign(path) as file:
        kind = _kind(path, file.peek(16))
        if not kind:
            yield _Tee(file, saw)
            return
        seen = _Tee(file, saw)
        opened = gzip.GzipFile(fileobj=seen, mode="rb") if kind == "gzip" else _zstd(path).ZstdFile(seen, "rb")
        with opened as inside:
            yield io.BufferedReader(_Unpacked(inside, path, kind), _BLOCK)


def _kind(path: Path, head: bytes) -> str:
    """The compression, by the first bytes; empty if there is none."""
    for magic, kind in _NOT_READ.items():
        if head.startswith(magic):
            raise UserError(f"{path} is {kind} data, which is not read here; unpack it, or give it as .gz or .zst")
    found = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")
    named = PACKED.get(path.suffix.lower(), "")
    if head and named and named != found:
        raise UserError(
            f"{path} is not {named} data, although its name says so; give it its right name, or get it again"
        )
    return found


def _zstd(path: Path) -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            return importlib.import_module(name)
    raise UserError(f"{path}: reading .zst needs Python 3.14 or an extra: pip install 'tui-llm[corpora]'")


class _Tee(io.RawIOBase, BinaryIO):
    """The bytes of `file`, which `saw` gets too."""

    def __init__(self, file: BinaryIO, saw: Saw) -> None:
        self._file, self._saw = file, saw

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._saw(data)
        return data

    def readline(self, size: int | None = -1) -> bytes:
        line = self._file.readline(-1 if size is None else size)
        self._saw(line)
        return line


class _Unpacked(io.RawIOBase):
    """The unpacked bytes of `inside`, as many as the disk has free."""

    def __init__(self, inside: Any, path: Path, kind: str) -> None:
        self._inside, self._path, self._kind = inside, path, kind
        self._most = self._left = free_bytes()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inside.read(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Damaged(self._damaged()) from error
        except Exception as error:
            if type(error).__name__ == "ZstdError":  # of a module that may not be installed
                raise Damaged(self._damaged()) from error
            raise
        self._left -= len(data)
        if self._left < 0:
            raise UserError(
                f"{self._path} unpacks to more than the {self._most:,} bytes that are free in {paths.cache_dir()}, where its tokens would be; "
                "give a smaller file, or free some space"
            )
        buffer[: len(data)] = data
        return len(data)

    def _damaged(self) -> str:
        return f"{self._path} is cut short or damaged: its {self._kind} data ends early or is not valid; get it again"


def free_bytes() -> int:
    """The bytes that are free on the disk of the cache."""
    folder = paths.cache_dir()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
