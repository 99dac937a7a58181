"""Read one column of a Parquet file, a few rows at a time, with pyarrow (extra `[corpora]`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError, message_line
from tui_llm.common.foreign_files import open_foreign
from tui_llm.llm.data.formats import LONGEST
from tui_llm.llm.data.packed import Saw

_ROWS = 64  # read at a time, or fewer, of as many bytes as the longest record
_BLOCK = 1 << 20
# A column's part of a row group is not read as a whole.
_READING: dict[str, Any] = {"page_checksum_verification": True, "buffer_size": _BLOCK, "pre_buffer": False}
_DICTIONARY = {"PLAIN_DICTIONARY", "RLE_DICTIONARY"}
_ENCODINGS = {"PLAIN", "RLE", "BIT_PACKED"} | _DICTIONARY  # those of a dictionary and its indices
# Those that store once what several rows have; the last one the common beginning of a value and the one before.
_SHARED = _DICTIONARY | {"DELTA_BYTE_ARRAY"}


def rows(
    path: Path, choose: Callable[[list[str], str], str], saw: Saw = lambda _: None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and row for an error, row with the one column that `choose` returns for the columns' names).

    `saw` gets the bytes of the whole file, in order. Raises `UserError`, with the number of the row.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: reading .parquet needs an extra: pip install 'tui-llm[corpora]'") from error
    done = 0
    with open_foreign(path) as file, open_foreign(path) as seen:
        try:
            opened = parquet.ParquetFile(file, **_READING)
            column = choose(opened.schema_arrow.names, str(path))
            by_dictionary = None
            if column in [opened.metadata.schema.column(at).path for at in range(len(opened.metadata.schema))]:
                by_dictionary = parquet.ParquetFile(
                    file, metadata=opened.metadata, read_dictionary=[column], **_READING
                )  # not of lists or structs
            total, size = max(1, opened.metadata.num_rows), path.stat().st_size
            for batch in _batches(opened, by_dictionary, column):
                for value in batch.column(0):
                    done += 1
                    found = value.as_py()
                    if isinstance(found, str | bytes) and len(found) > LONGEST:
                        raise UserError(f"{path} row {done} has more than {LONGEST:,} characters; give shorter records")
                    yield f"{path} row {done}", {column: found}
                while seen.tell() < done / total * size and (data := seen.read(_BLOCK)):
                    saw(data)
            while data := seen.read(_BLOCK):
                saw(data)
        except UnicodeDecodeError as error:
            raise UserError(f"{path} row {done} is not UTF-8 text; write the file again") from error
        except (pyarrow.ArrowException, OSError, MemoryError, ValueError, OverflowError) as error:
            raise UserError(
                f"{path} can't be read as Parquet after row {done} ({message_line(error)[:100].rstrip('.')}); it may be damaged or cut short"
            ) from error


def _chunks(opened: Any, group: int, column: str) -> list[Any]:
    """What the file says of the column in a row group, one for each leaf."""
    found = opened.metadata.row_group(group)
    chunks = [found.column(at) for at in range(found.num_columns)]
    return [one for one in chunks if one.path_in_schema == column or one.path_in_schema.startswith(f"{column}.")]


def _batches(opened: Any, by_dictionary: Any, column: str) -> Iterator[Any]:
    """The column's record batches. All rows of one are in memory before their length is known.

    `by_dictionary` reads a repeated text so that it is in memory once, but keeps every text of a row group: it is for those whose
    texts are known to be few bytes. It can't read delta encodings.
    """
    for group in range(opened.num_row_groups):
        chunks = _chunks(opened, group, column)
        size = max(1, sum(chunk.total_uncompressed_size for chunk in chunks))
        encodings = {encoding for chunk in chunks for encoding in chunk.encodings}
        reader, rows = opened, LONGEST * max(1, opened.metadata.row_group(group).num_rows) // size
        if by_dictionary is not None and size <= LONGEST and encodings <= _ENCODINGS:
            reader = by_dictionary
        elif encodings & _SHARED:
            rows = LONGEST // size  # each row may have all bytes of the group
        yield from reader.iter_batches(
            max(1, min(_ROWS, rows)), row_groups=[group], columns=[column], use_threads=False
        )
