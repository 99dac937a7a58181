"""Parse the header of a GGUF file and check it against the file's length before the `gguf` library, which trusts every
count, reads it.

Format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version, number of tensors, number of
key-value pairs; the pairs; the tensors' names, shapes, types and offsets; and from the next multiple of the alignment,
their data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_foreign

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MOST_ELEMENTS = 3_000_000  # in all arrays: the library creates two objects per element (Gemma's file has 1.3 million)
_MOST_NUMBERS = 1 << 50
_MOST_ENTRIES = 1 << 17  # key-value pairs, and tensors
_MOST_TEXT = 1 << 26  # bytes of all strings that are kept


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor's type (F32, Q8_0 …), its shape (GGUF's order: the length of a row first), and where its data is:
    `offset` bytes after the header, `length` bytes."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int

    @property
    def numbers(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class GgufInfo:
    """What the header of a GGUF file says.

    settings: the key-value pairs, without arrays but those that were asked for.
    start: where the tensors' data begins; tensors: by name.
    """

    settings: dict[str, Any]
    start: int
    tensors: dict[str, GgufTensor]

    @property
    def numbers(self) -> int:
        """The number of weights in all tensors."""
        return sum(tensor.numbers for tensor in self.tensors.values())


def read_gguf(path: Path, arrays: Collection[str] = ()) -> GgufInfo:
    """Parse the header, with the lists called `arrays`. Raises `UserError` if it is no GGUF file, or the header does not
    match the file."""
    with open_foreign(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            return _Reader(file, size, arrays).read()
        except (ValueError, struct.error) as error:
            raise UserError(f"{path} is not a GGUF file, or is damaged ({error}); get it again") from error


class _Reader:
    """Raises ValueError if the header does not match the file."""

    def __init__(self, file: BufferedReader, size: int, arrays: Collection[str]) -> None:
        self.file, self.size, self.arrays = file, size, arrays
        self.at = self.elements = self.text = 0  # at: the position in the file; its tell() is slow

    def read(self) -> GgufInfo:
        if self._bytes(4) != b"GGUF":
            raise ValueError("its first bytes are not GGUF")
        version, tensors, pairs = self._number("<I"), self._number("<Q"), self._number("<Q")
        if version not in (2, 3):
            raise ValueError(f"its version is {version}; 2 and 3 are known")
        if max(tensors, pairs) > _MOST_ENTRIES:
            raise ValueError(f"it has {tensors:,} tensors and {pairs:,} settings; {_MOST_ENTRIES:,} at most are read")
        settings: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._string()
            if key in settings:
                raise ValueError(f"{key[:60]!r} occurs twice")
            settings[key] = self._value(self._number("<I"), key in self.arrays)
        infos = dict(self._tensor() for _ in range(tensors))
        if len(infos) != tensors:
            raise ValueError("a tensor occurs twice")
        alignment = settings.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"its alignment is {alignment}, not a power of two")
        start = -(-self.at // alignment) * alignment
        self._placed(infos, start)
        return GgufInfo(settings, start, infos)

    def _placed(self, infos: dict[str, GgufTensor], start: int) -> None:
        """Check that all tensors are inside the file and don't overlap."""
        at = 0
        for offset, length in sorted((tensor.offset, tensor.length) for tensor in infos.values()):
            if offset < at:
                raise ValueError("two tensors overlap")
            at = offset + length
        if infos and start + at > self.size:  # a file of a vocabulary alone has no padding
            raise ValueError(f"it is cut short: {start + at:,} bytes are expected, {self.size:,} are there")

    def _tensor(self) -> tuple[str, GgufTensor]:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        name, dimensions = self._string(), self._number("<I")
        if dimensions > 8:
            raise ValueError(f"{name[:60]!r} has {dimensions} dimensions")
        shape = [self._number("<Q") for _ in range(dimensions)]
        kind, offset = GGMLQuantizationType(self._number("<I")), self._number("<Q")
        numbers = math.prod(shape)
        block, width = GGML_QUANT_SIZES[kind]
        if numbers > _MOST_NUMBERS or (shape and shape[0] % block):
            raise ValueError(f"{name[:60]!r} has the shape {str(shape)[:60]}")
        return name, GgufTensor(kind.name, tuple(shape), offset, numbers // block * width)

    def _value(self, kind: int, keep: bool) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            raise ValueError(f"a value is of the unknown type {kind}")
        kind, count = self._number("<I"), self._number("<Q")
        self.elements += count
        if self.elements > _MOST_ELEMENTS:
            raise ValueError(f"its lists have {self.elements:,} elements; {_MOST_ELEMENTS:,} at most are read")
        if kind in _SCALARS:
            size = count * struct.calcsize(_SCALARS[kind])
            if keep:
                return list(struct.unpack(f"<{count}{_SCALARS[kind][1]}", self._bytes(size)))
            self._skip(size)
        elif kind == _STRING:
            if keep:
                return [self._string() for _ in range(count)]
            for _ in range(count):
                self._skip(self._number("<Q"))
        else:
            raise ValueError(f"a list is of the unknown type {kind}")
        return None

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _string(self) -> str:
        count = self._number("<Q")
        self._there(count, "bytes")
        self.text += count
        if self.text > _MOST_TEXT:
            raise ValueError(f"its texts have more than {_MOST_TEXT:,} bytes")
        return self._bytes(count).decode("utf-8")

    def _bytes(self, count: int) -> bytes:
        self._there(count, "bytes")
        self.at += count
        return self.file.read(count)

    def _skip(self, count: int) -> None:
        self._there(count, "bytes")
        self.at += count
        self.file.seek(count, 1)

    def _there(self, count: int, what: str) -> None:
        if count > self.size - self.at:
            raise ValueError(f"it is cut short: {count:,} more {what} are expected")
