"""The header of a safetensors file: tensor names, dtypes and shapes. No torch here.

The header is checked against the file before any memory is allocated for it: the tensors must fill the file exactly, as
the format requires (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeGuard

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_foreign, parse_json

LARGEST_HEADER = 100_000_000  # bytes: the format's own limit
# Bits per element of each dtype.
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
        "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}  # fmt: skip
# torch's names of the floating-point dtypes.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor's header entry; `bytes` is its size in the file, `begin` the offset of its first byte there."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    begin: int

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


# The headers that `headers_once` keeps, by device, inode, size and modification time of their file.
_Headers = dict[tuple[int, int, int, int], dict[str, TensorInfo]]
_kept: ContextVar[_Headers | None] = ContextVar("headers", default=None)


@contextmanager
def headers_once() -> Iterator[None]:
    """In this block, on this thread, an unchanged file's header is parsed once. Opening or describing a model asks for it several
    times, and one of 100,000 tensors takes a second."""
    if _kept.get() is not None:  # inside another such block
        yield
        return
    before = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(before)


def read_shapes(path: Path) -> dict[str, list[int]]:
    """Tensor name → shape, read from a safetensors file's header. Raises `UserError` if it is no safetensors file."""
    return {name: list(tensor.shape) for name, tensor in read_header(path).items()}


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Tensor name → its header entry. Raises `UserError` if it is no safetensors file, or its header doesn't match the
    file."""
    with open_foreign(path) as file:
        kept = _kept.get()
        if kept is None:
            return _read(file, path)
        found = os.fstat(file.fileno())
        key = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
        if key not in kept:
            kept[key] = _read(file, path)
        return dict(kept[key])


def _read(file: BufferedReader, path: Path) -> dict[str, TensorInfo]:
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(8)
    if len(head) < 8:
        raise UserError(f"{path} is empty or cut short; get it again")
    (length,) = struct.unpack("<Q", head)
    if length > LARGEST_HEADER or head[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
        raise UserError(f"{path} is not a safetensors file (a pickle, perhaps); nothing else is ever opened")
    if length > size - 8:
        raise UserError(f"{path} is empty or cut short; get it again")
    header = parse_json(file.read(length), path)
    try:
        if not isinstance(header, dict):
            raise ValueError("its header is not a JSON object")
        return _checked(header, size - 8 - length, 8 + length)
    except ValueError as error:
        raise UserError(f"{path} is not a safetensors file, or is damaged ({error}); get it again") from error


def _checked(header: Mapping[str, Any], size: int, start: int) -> dict[str, TensorInfo]:
    """The tensors of `header`, which must be contiguous and fill the `size` bytes from offset `start`. Raises
    ValueError."""
    tensors: dict[str, TensorInfo] = {}
    spans: list[tuple[int, int, str]] = []
    for name, value in header.items():
        if name == "__metadata__":
            continue
        tensor = tensors[name] = _tensor(name, value, start)
        spans.append((tensor.begin - start, tensor.begin - start + tensor.bytes, name))
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            raise ValueError(f"{_short(name)} does not begin where the tensor before it ends")
        at = end
    if at != size:
        raise ValueError(f"its tensors have {at:,} bytes, the file has {size:,} for them")
    return tensors


def _tensor(name: str, value: Any, start: int) -> TensorInfo:
    """A tensor's entry; its offsets count from `start`."""
    if not isinstance(value, dict):
        raise ValueError(f"{_short(name)} is not a tensor")
    dtype, shape, offsets = (value.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"{_short(name)} is of no known type: {_short(dtype)}")
    if not _sizes(shape):
        raise ValueError(f"{_short(name)} has no shape: {_short(shape)}")
    if not _sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{_short(name)} has no valid data_offsets: {_short(offsets)}")
    bits = math.prod(shape) * BITS[dtype]
    if offsets[1] - offsets[0] != bits // 8 or bits % 8:
        raise ValueError(
            f"{_short(name)} has {offsets[1] - offsets[0]:,} bytes, its shape {_short(shape)} needs {bits / 8:.16g}"
        )
    return TensorInfo(dtype, tuple(shape), bits // 8, start + offsets[0])


def _sizes(value: Any) -> TypeGuard[list[int]]:
    """Whether it is a list of at most 16 non-negative integers of plausible size."""
    return (
        isinstance(value, list)
        and len(value) <= 16
        and all(type(size) is int and 0 <= size < 1 << 50 for size in value)
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:80] + "…"
