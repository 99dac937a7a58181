"""Read one column of a Parquet file, a few rows at a time, with pyarrow (extra `[corpora]`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError, message_line
from tui_llm.common.foreign_files import open_foreign
from tui_llm.llm.data.formats import LONGEST
from tui_llm.llm.data.packed import Saw

_ROWS = 64  # read at a time
_BLOCK = 1 << 20


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
            opened = parquet.ParquetFile(file, page_checksum_verification=True)
            column = choose(opened.schema_arrow.names, str(path))
            total, size = max(1, opened.metadata.num_rows), path.stat().st_size
            for batch in opened.iter_batches(_ROWS, columns=[column], use_threads=False):
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
