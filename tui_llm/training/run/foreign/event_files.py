"""TensorBoard's event files: their scalars as curves, without TensorFlow or TensorBoard.

A file is a sequence of TFRecords (tensorflow/core/lib/io/record_writer.h): the length of the data in 8 bytes, its masked
CRC-32C in 4, the data, its masked CRC-32C in 4. The data is an `Event` (tensorflow/core/util/event.proto), whose `Summary`
has (tag, value) pairs: `simple_value` of older writers, a `TensorProto` of one number of newer ones.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path

from tui_llm.common.foreign_files import open_regular
from tui_llm.training.run.foreign.log_curves import LogCurves
from tui_llm.training.run.foreign.wire import bytes_of, fields, masked_crc, real, signed

PREFIX = "events.out.tfevents."
KIND = "TensorBoard"
LARGEST = 1 << 14  # bytes of a record that may hold scalars; a larger one is an image, a histogram, a graph or text
MOST_BYTES = 64 << 30
_HEADER, _FOOTER = 12, 4
_FLOAT, _DOUBLE = 1, 2  # DataType of a TensorProto


class EventFile:
    """Reads an event file as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._broken = False

    def read(self, into: LogCurves, limit: int) -> bool:
        """Reads up to `limit` more bytes; returns whether there may be more. Raises OSError."""
        into.kind = KIND
        with open_regular(self.path, MOST_BYTES) as file:
            size = os.fstat(file.fileno()).st_size
            stop = self._offset + limit
            while not self._broken and self._offset + _HEADER <= size and self._offset < stop:
                file.seek(self._offset)
                header = file.read(_HEADER)
                length, check = struct.unpack("<QI", header)
                if masked_crc(header[:8]) != check:
                    self._broken = True  # where the next record begins is not known
                    into.damaged += 1
                    return False
                whole = _HEADER + length + _FOOTER
                if self._offset + whole > size:
                    return False  # being written
                if length <= LARGEST:
                    data, (crc,) = file.read(length), struct.unpack("<I", file.read(_FOOTER))
                    into.damaged += not (masked_crc(data) == crc and _add(data, into))
                self._offset += whole
        return not self._broken and self._offset >= stop


def _add(data: bytes, into: LogCurves) -> bool:
    """Adds the scalars of an event; returns False if it is damaged."""
    when, step = math.nan, 0
    summary = b""
    try:
        for number, value in fields(data):
            if number == 1:
                when = real(value)
            elif number == 2:
                step = signed(value)
            elif number == 5:
                summary = bytes_of(value)
        found = [pair for number, value in fields(summary) if number == 1 and (pair := _scalar(bytes_of(value)))]
    except ValueError:
        return False
    for tag, scalar in found:
        into.add(tag, step, scalar)
    if found:
        into.at_time(step, when)
    return True


def _scalar(data: bytes) -> tuple[str, float] | None:
    """(tag, value) of a `Summary.Value`; None if it is no scalar. Raises ValueError if it is damaged."""
    tag, value, plugin = "", None, b""
    for number, field in fields(data):
        if number == 1:
            tag = bytes_of(field)[:200].decode("utf-8", "replace")
        elif number == 2:
            value = real(field)
        elif number == 8:
            value = _tensor(bytes_of(field))
        elif number == 9:
            plugin = bytes_of(field)
    if not tag or value is None or (plugin and b"scalars" not in plugin):
        return None
    return tag, value


def _tensor(data: bytes) -> float | None:
    """The one number of a `TensorProto`; None if it has another type or shape. Raises ValueError if it is damaged."""
    kind, numbers = 0, b""
    for number, value in fields(data):
        if number == 1:
            kind = signed(value)
        elif number in (4, 5, 6):  # tensor_content, float_val, double_val
            numbers = bytes_of(value)
    if (kind, len(numbers)) not in ((_FLOAT, 4), (_DOUBLE, 8)):
        return None
    return real(numbers)
