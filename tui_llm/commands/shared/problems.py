"""An exception as the one line that the command line prints."""

from __future__ import annotations

import argparse
import errno
import sys

from tui_llm.common.address_space import SHORT
from tui_llm.common.crash_log import record
from tui_llm.common.display import truncate, visible
from tui_llm.common.errors import UserError, in_one_line
from tui_llm.common.new_files import FORCE, AlreadyExists

LONGEST = 300  # cells of another library's message
# Words of torch's, numpy's and the dynamic linker's messages without memory; they raise RuntimeError and ImportError.
_NO_MEMORY = ("allocate memory", "alloc", "failed to map segment", "out of memory", "not enough memory")
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO)


def line(error: Exception, options: argparse.Namespace) -> str:
    """A `UserError`'s own message; for anything else a message that names the log, into which the traceback goes."""
    if isinstance(error, UserError):
        force = FORCE if isinstance(error, AlreadyExists) and hasattr(options, "force") else ""
        return visible(f"{error}{force}")
    if (broken := _output_error()) is not None:
        return f"can't write the output: {broken.strerror or broken}"
    where = record(error)
    message = truncate(visible(in_one_line(error)), LONGEST)
    if _wants_memory(error):
        return visible(f"{SHORT} ({where})")
    if isinstance(error, OSError):
        if error.filename is not None:
            return visible(f"{truncate(visible(str(error.filename)), LONGEST)}: {error.strerror or message} ({where})")
        writing = "can't write: " if error.errno in _WRITING else ""
        return visible(f"{writing}{error.strerror or message} ({where})")
    if isinstance(error, ImportError):
        return visible(f"can't load a part of this program: {message}; reinstall it ({where})")
    return visible(f"internal error: {type(error).__name__}: {message}; {where}")


def _output_error() -> OSError | None:
    """Why standard output can't be written, if it can't: its buffer still holds what failed."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    except ValueError:  # closed
        return None
    return None


def _wants_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    message = str(error).lower()
    return isinstance(error, (ImportError, RuntimeError)) and any(words in message for words in _NO_MEMORY)
