"""wandb's local files as curves: run-ID.wandb, wandb-history.jsonl of old versions, wandb-summary.json.

run-ID.wandb is what an offline run of wandb 0.31 writes, and the only file with its curves. It begins with ":W&B", 0xBEE1 and a version; then it is a
log of LevelDB (github.com/google/leveldb, doc/log_format.md): blocks of 32 KiB with records of a CRC-32 (4 bytes), length (2)
and type (1: whole, 2: first, 3: middle, 4: last part), little-endian. The data is a `Record` of wandb_internal.proto; field 2 is a
`HistoryRecord` of items (key or nested keys, value as JSON, or typed).
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_regular, read_json
from tui_llm.training.run.foreign.log_curves import LogCurves
from tui_llm.training.run.foreign.wire import bytes_of, fields, real, signed, zigzag
from tui_llm.training.run.status import number

SUFFIX = ".wandb"
HISTORY, SUMMARY = "wandb-history.jsonl", "wandb-summary.json"
KIND = "wandb"
MOST_BYTES = 16 << 30
LARGEST = 1 << 20  # bytes of a record that may hold a line of the history
BLOCK, HEADER = 1 << 15, 7
MAGIC = b":W&B\xe1\xbe"
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


class WandbFile:
    """Reads a run-ID.wandb as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._parts: list[bytes] = []  # of the record that continues in the next block

    def read(self, into: LogCurves, limit: int) -> bool:
        """Reads up to `limit` more bytes; returns whether there may be more. Raises OSError, and `UserError` if it is none."""
        into.kind = KIND
        with open_regular(self.path, MOST_BYTES) as file:
            size = os.fstat(file.fileno()).st_size
            if not self._offset:
                if file.read(HEADER)[: len(MAGIC)] != MAGIC:
                    raise UserError(f"{self.path} is not a log of wandb: it doesn't begin as one")
                self._offset = HEADER
            stop = self._offset + limit
            while self._offset + HEADER <= size and self._offset < stop:
                if (left := BLOCK - self._offset % BLOCK) < HEADER:
                    self._offset += left
                    continue
                file.seek(self._offset)
                check, length, kind = struct.unpack("<IHB", file.read(HEADER))
                if HEADER + length > left:
                    into.damaged += 1
                    self._parts = []
                    self._offset += left  # the next block begins with a record
                    continue
                if self._offset + HEADER + length > size:
                    return False  # being written
                data = file.read(length)
                self._offset += HEADER + length
                if zlib.crc32(data, zlib.crc32(bytes([kind]))) != check:
                    into.damaged += bool(check or length or kind)  # zeros: space that was reserved
                    self._parts = []
                    continue
                self._part(kind, data, into)
        return self._offset >= stop

    def _part(self, kind: int, data: bytes, into: LogCurves) -> None:
        if kind in (WHOLE, FIRST):
            self._parts = [data]
        elif self._parts and sum(map(len, self._parts)) <= LARGEST:
            self._parts.append(data)
        else:
            self._parts = []  # too large for a line of the history, or its beginning was damaged
        if kind in (WHOLE, LAST) and self._parts:
            record, self._parts = b"".join(self._parts), []
            try:
                _add(record, into)
            except ValueError:
                into.damaged += 1


def _add(record: bytes, into: LogCurves) -> None:
    """Adds a `Record`; only those of the history have curves. Raises ValueError if it is damaged."""
    for field, value in fields(record):
        if field != 2:
            continue
        step, values = None, dict[str, Any]()
        for part, inner in fields(bytes_of(value)):
            if part == 1:
                name, found = _item(bytes_of(inner))
                values[name] = found
            elif part == 2:
                step = next((signed(one) for at, one in fields(bytes_of(inner)) if at == 1), 0)
        _line(values if step is None or "_step" in values else {**values, "_step": step}, into)


def _item(data: bytes) -> tuple[str, Any]:
    """(name, value) of a `HistoryItem`: None for a value that is no number. Raises ValueError if it is damaged."""
    names: list[str] = []
    value: Any = None
    for field, inner in fields(data):
        if field in (1, 2):
            names.append(bytes_of(inner)[:200].decode("utf-8", "replace"))
        elif field == 5:
            value = zigzag(inner)
        elif field == 6:
            value = real(inner)
        elif field == 16 and len(text := bytes_of(inner)) <= 64:  # a number; longer ones are pictures, tables, texts
            value = _json(text)
    return ".".join(filter(None, names)), value


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)  # also NaN, which wandb writes so
    except (ValueError, RecursionError):
        return None


def add_history_line(line: bytes, into: LogCurves) -> None:
    """Adds a line of wandb-history.jsonl; a damaged one is counted."""
    into.kind = KIND
    value = _json(line)
    if isinstance(value, dict) and "_step" in value:
        _line(value, into)
    else:
        into.damaged += bool(line.strip())


def _line(values: dict[str, Any], into: LogCurves) -> None:
    step = number(values.get("_step"))
    if step is None or step != int(step):
        into.damaged += 1
        return
    for name, value in _numbers(values):
        into.add(name, int(step), value)
    if (when := number(values.get("_timestamp"))) is not None:
        into.at_time(int(step), when)


def _numbers(values: dict[str, Any]) -> Iterable[tuple[str, float]]:
    for name, value in values.items():
        if name and not name.startswith("_") and isinstance(value, int | float) and not isinstance(value, bool):
            found = number(value)
            yield name, math.nan if found is None else found


def add_summary(path: Path, into: LogCurves) -> None:
    """Adds the newest value of each curve, a point each. Raises `UserError` if the file can't be read."""
    into.kind = KIND
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; it may be damaged")
    _line({"_step": 0, **value}, into)
