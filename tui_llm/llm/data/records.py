"""Read records, one document each: lines of JSON, a JSON array, CSV, Parquet. A record at a time, in bounded memory.

A record is an object (a row, in CSV and Parquet). Its text is one field: a string, or chat messages, whose contents are
joined by line breaks as fine-tuning joins an instruction and its answer. Every error names the file and the line.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tui_llm.common.errors import UserError, message_line
from tui_llm.common.foreign_files import MOST_VALUES
from tui_llm.llm.data.formats import FIELDS, LONGEST
from tui_llm.llm.data.packed import Damaged, Saw, open_packed

_MANY = 4 << 20  # bytes of a record from which on its values are counted before it is parsed
_READ = 1 << 18  # characters of a JSON array that are read at a time
_SHOWN = 12  # field names in an error
_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", int: "a number", float: "a number", type(None): "null", bytes: "bytes"}  # fmt: skip


def texts(path: Path, kind: str, field: str, saw: Saw = lambda _: None) -> Iterator[str]:
    """The text of each record of the file at `path`, whose format is `kind`; `saw` as in `open_packed`.

    Raises `UserError`, with the number of the line (of the row, for Parquet).
    """
    chosen = _Field(field, FIELDS[:1] if kind in ("csv", "tsv") else FIELDS)
    if kind == "parquet":
        from tui_llm.llm.data import parquet

        for where, row in parquet.rows(path, chosen.choose, saw):
            yield chosen.text(row, where)
        return
    at = 0
    with open_packed(path, saw) as file:
        try:
            for at, record in _records(file, path, kind):
                yield chosen.text(record, f"{path} line {at}")
        except Damaged as error:
            raise UserError(f"{error} (after line {at})") from error


def objects(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of each line of JSON of the file at `path`. Raises `UserError` with the line's number."""
    at = 0
    with open_packed(path) as file:
        try:
            for at, value in _json_lines(file, path):
                yield at, value
        except Damaged as error:
            raise UserError(f"{error} (after line {at})") from error


def _records(file: BinaryIO, path: Path, kind: str) -> Iterator[tuple[int, Any]]:
    """(line number, record)."""
    if kind == "jsonl":
        return _json_lines(file, path)
    return _json(file, path) if kind == "json" else _csv(file, path, "\t" if kind == "tsv" else ",")


# ── the field ────────────────────────────────────────────────────────────────────────────────────────────────────


class _Field:
    """The field that has the text: the given one, else the first of `names` that the file's first record has."""

    def __init__(self, given: str, names: Sequence[str]) -> None:
        self.name, self._given, self._names = given, given, names

    def choose(self, found: Iterable[str], where: str) -> str:
        """The field's name, given those that a record has. Raises `UserError` if it is not among them."""
        found = list(found)
        self.name = self.name or next((name for name in self._names if name in found), "")
        if self.name in found and self.name:
            return self.name
        wanted = f"no field {self.name[:80]!r}" if self.name else f"no field {' or '.join(self._names)}"
        shown = ", ".join(name[:40] for name in found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
        raise UserError(
            f"{where} has {wanted}; " + (f"it has: {shown}; choose one with --field NAME" if found else "it is empty")
        )

    def text(self, record: Any, where: str) -> str:
        """Raises `UserError` if the record has no such text."""
        if isinstance(record, str) and not self._given:
            return record
        if not isinstance(record, dict):
            raise UserError(f'{where} is {_kind(record)}, not a record; write each as an object, such as {{"text": …}}')
        value = record[self.choose(record, where)]
        if isinstance(value, str) and (self._given or self.name != "messages"):
            return value
        if isinstance(value, list):
            return "\n".join(
                self._content(one, f"{where}: message {n} of {self.name!r}") for n, one in enumerate(value, 1)
            )
        raise UserError(
            f"{where}: the field {self.name!r} is {_kind(value)}, not text; choose another with --field NAME"
        )

    def _content(self, message: Any, where: str) -> str:
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str):
            raise UserError(f'{where} is not {{"role": …, "content": text}}; choose another field with --field NAME')
        return content.strip()


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise UserError(f"{path} line {number} has more than {LONGEST:,} bytes; give shorter records")
        yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _json_lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(file, path):
        if line.strip():
            yield number, _parsed(line, f"{path} line {number}")


def _parsed(line: bytes, where: str) -> Any:
    if len(line) > _MANY:
        _check_values(sum(map(line.count, (b",", b"[", b"{"))), where)
    try:
        return json.loads(line.decode("utf-8"))
    except RecursionError as error:
        raise UserError(f"{where} is nested too deep to be a record") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text (byte {error.start:,} of the line); convert the file") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where} is not valid JSON ({error.msg.removesuffix(' at')}, column {error.colno}); mend or remove it"
        ) from error
    except ValueError as error:  # a number with more digits than Python converts
        raise UserError(f"{where} is not valid JSON ({message_line(error)}); mend or remove it") from error


def _check_values(count: int, where: str) -> None:
    if count > MOST_VALUES:
        raise UserError(f"{where} has more than {MOST_VALUES:,} values; give shorter records")


def _json(file: BinaryIO, path: Path) -> Iterator[tuple[int, Any]]:
    """The values of an array; or those of the file, one after the other, if it does not begin with an array."""
    window = _JsonWindow(file, path)
    array, first = window.take("["), True
    while True:
        if array and window.take("]"):
            if window.next():
                raise UserError(f"{path} line {window.line} is not valid JSON (more text after the array)")
            return
        if not window.next():
            if array:
                raise UserError(f"{path} is cut short: its array does not end (line {window.line}); get it again")
            return
        if array and not first and not window.take(","):
            raise UserError(f"{path} line {window.line} is not valid JSON (a comma is missing between two records)")
        window.next()
        yield window.line, window.value()
        first = False


_BLANK = re.compile(r"[ \t\r\n]*")


class _JsonWindow:
    """The part of a JSON file that is being read."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._decoder, self._json = codecs.getincrementaldecoder("utf-8-sig")(), json.JSONDecoder()
        self._text, self._at, self._read, self._ended = "", 0, 0, False
        self.line = 1

    def next(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            assert blank is not None
            self._skip(blank.end() - self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(_READ):
                return ""

    def take(self, character: str) -> bool:
        """Whether that is the next one, which is then skipped."""
        found = self.next() == character
        self._skip(found)
        return found

    def value(self) -> Any:
        """The value that begins here."""
        where = f"{self._path} line {self.line}"
        while True:
            size = len(self._text) - self._at
            if size > LONGEST:
                raise UserError(f"{where} begins a record of more than {LONGEST:,} characters; give shorter records")
            if size > _MANY:
                _check_values(sum(self._text.count(c, self._at) for c in ",[{"), where)
            try:
                value, end = self._json.raw_decode(self._text, self._at)
                self._skip(end - self._at)
                return value
            except RecursionError as error:
                raise UserError(f"{where} is nested too deep to be a record") from error
            except json.JSONDecodeError as error:
                # A value that is not read to its end yet fails at the end of the text, or inside a string.
                ends = error.msg.startswith("Unterminated") or error.pos > len(self._text) - 16
                if not (ends and self._more(max(_READ, size))):
                    line = self.line + self._text.count("\n", self._at, error.pos)
                    cut = "; it is cut short" if ends else "; mend it"
                    raise UserError(
                        f"{self._path} line {line} is not valid JSON ({error.msg.removesuffix(' starting at')}){cut}"
                    ) from error
            except ValueError as error:  # a number with more digits than Python converts
                raise UserError(f"{where} is not valid JSON ({message_line(error)}); mend it") from error

    def _skip(self, count: int) -> None:
        self.line += self._text.count("\n", self._at, self._at + count)
        self._at += count

    def _more(self, size: int) -> bool:
        """Read on; False at the file's end."""
        if self._ended:
            return False
        data = self._file.read(size)
        self._ended = not data
        self._read += len(data)
        try:
            self._text = self._text[self._at :] + self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            line = self.line + self._text.count("\n", self._at) + error.object[: error.start].count(b"\n")
            raise UserError(f"{self._path} line {line} is not UTF-8 text; convert the file") from error
        self._at = 0
        return not self._ended


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _CsvLines:
    """The file's lines as text. Limits the length of a row, whose quoted fields can have many lines."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._lines, self._path, self.row_bytes = _lines(file, path), path, 0

    def __iter__(self) -> Iterator[str]:
        for number, line in self._lines:
            self.row_bytes += len(line)
            if self.row_bytes > LONGEST:
                raise UserError(
                    f"{self._path} line {number}: a row has more than {LONGEST:,} bytes; is a quote missing?"
                )
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{self._path} line {number} is not UTF-8 text (byte {error.start:,} of the line); convert the file"
                ) from error


def _csv(file: BinaryIO, path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(LONGEST)
    lines = _CsvLines(file, path)
    rows = csv.reader(iter(lines), delimiter=delimiter, strict=True)
    header: list[str] = []
    begin = 1
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise UserError(f"{path} line {begin} is not valid CSV ({message_line(error)}); mend it") from error
        if row is None:
            return
        if not header:
            header = row
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise UserError(f"{path} line {begin}: two columns are called {twice[:40]!r}; rename one")
        elif row:
            if len(row) != len(header):
                raise UserError(
                    f"{path} line {begin} has {len(row)} of the first line's {len(header)} columns; mend it"
                )
            yield begin, dict(zip(header, row, strict=True))
        begin, lines.row_bytes = rows.line_num + 1, 0
