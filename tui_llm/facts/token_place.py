"""The place of a training token in the files of its corpus."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """Where a token begins. `file` is a path: foreign text.

    `offset` is the byte in the file (in its unpacked text, if it is compressed); of lines of JSON, the byte at which the
    record's line begins; None if there is no such byte, as in Parquet. `record` counts the records from 1; None for plain
    text.
    """

    file: str
    offset: int | None
    record: int | None = None
