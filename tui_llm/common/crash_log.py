"""Write tracebacks to a log file instead of the screen."""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from tui_llm.common import paths
from tui_llm.common.errors import UserError

NAME = "errors.log"
LARGEST = 1 << 20  # bytes: beyond this the file is rotated to errors.log.1
DEBUG = "TUI_LLM_DEBUG"


def record(error: BaseException) -> str:
    """Append the whole traceback to the log. Returns a message with the log's path, or why it could not be written.
    Never raises."""
    if os.environ.get(DEBUG):
        with suppress(OSError, ValueError):
            traceback.print_exception(error, file=sys.stderr)
    try:
        path = paths.log_dir() / NAME
    except UserError as why:
        return f"no log was written: {why}"
    try:
        from tui_llm.common import storage

        storage.make_folders(path.parent)
        if _is_large(path):
            storage.replace(path, path.with_name(f"{NAME}.1"))
        with storage.open_file(path, "ab") as file:
            file.write(_entry(error).encode("utf-8", "backslashreplace"))
    except (ImportError, OSError, MemoryError, RecursionError) as why:
        return f"no log could be written to {path}: {getattr(why, 'strerror', None) or why}"
    return f"details in {path}"


def _entry(error: BaseException) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"{when} pid {os.getpid()} {sys.argv!r}\n{''.join(traceback.format_exception(error))}\n"


def _is_large(path: Path) -> bool:
    try:
        return path.stat().st_size > LARGEST
    except FileNotFoundError:
        return False
