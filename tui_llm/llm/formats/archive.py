"""The tensors of a `torch.save` file, which is a pickle with data. A child process with limits reads it, with torch's
weights-only loader, and hands over safetensors; nothing is unpickled in this process.

The file is a zip archive. Before the child starts, its directory is checked: nothing compressed, nothing larger than
the file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tui_llm.common.errors import UserError, message_line
from tui_llm.common.foreign_files import open_foreign, read_json
from tui_llm.llm.model.tensor_shapes import TensorInfo, read_header

_MOST_ENTRIES, _MOST_PICKLE = 200_000, 64 << 20  # the pickle itself, without the tensors' data
_MOST_DIRECTORY = 64 << 20  # bytes: 300 for each entry
_END = 56 + 20 + 22  # bytes of the records after the directory
_UNKNOWN = re.compile(r"(?:GLOBAL|Unsupported (?:class|global):?(?: GLOBAL)?|global) ([\w.]+)")


@dataclass(frozen=True, slots=True)
class Archive:
    """The content of a file: `path` is a safetensors file, `same` the names of tensors that are another one."""

    path: Path
    tensors: dict[str, TensorInfo]
    same: dict[str, str]
    settings: dict[str, Any] | None  # nanoGPT's model_args
    step: int | None


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The tensors of `path`, in a temporary folder. Raises `UserError` if it is no such file, if it holds other objects
    than tensors and numbers, or if reading it takes too much memory or time."""
    size = _check_zip(path)
    with tempfile.TemporaryDirectory(prefix="tui-llm-") as folder:
        _run(path, Path(folder), size)
        record = read_json(Path(folder) / "settings.json")
        file = Path(folder) / "tensors.safetensors"
        yield Archive(file, read_header(file), record["same"], record["model_args"], record["step"])


def _check_zip(path: Path) -> int:
    """The file's size. Raises `UserError` if its directory is not one that torch.save writes."""
    with open_foreign(path) as file:
        size = file.seek(0, 2)
        try:
            _check_directory(file, size)
            file.seek(0)
            entries = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, OverflowError) as error:
            raise UserError(f"{path} is damaged or cut short ({message_line(error)}); get it again") from error
    pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    whole = sum(entry.file_size for entry in entries)
    if len(entries) > _MOST_ENTRIES or len(pickles) != 1 or pickles[0].file_size > _MOST_PICKLE:
        raise UserError(f"{path} is not a file of torch.save; get it again")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or whole > size:
        raise UserError(f"{path} is a compressed archive, which torch.save does not write; it is not opened")
    return size


def _check_directory(file: BinaryIO, size: int) -> None:
    """Check the size of the archive's directory, which zipfile reads as a whole: as torch.save writes it, without a comment, in
    the file's last 22 bytes (APPNOTE.TXT 4.3.16), or in zip64's record of 56 bytes, which the locator of 20 bytes between
    them finds (4.3.14, 4.3.15). Raises BadZipFile."""
    file.seek(max(0, size - _END))
    tail = file.read(_END)
    record, locator, end = tail[:-42], tail[-42:-22], tail[-22:]
    if end[:4] != b"PK\x05\x06" or end[-2:] != b"\0\0":
        raise zipfile.BadZipFile("it does not end with a directory")
    length = int.from_bytes(end[12:16], "little")
    if locator[:4] == b"PK\x06\x07":
        if record[:4] != b"PK\x06\x06" or int.from_bytes(locator[8:16], "little") != size - _END:
            raise zipfile.BadZipFile("its directory is not where it says")
        length = int.from_bytes(record[40:48], "little")
    if length > _MOST_DIRECTORY:
        raise zipfile.BadZipFile(f"its directory has {length:,} bytes; {_MOST_DIRECTORY:,} at most are read")


def _run(path: Path, folder: Path, size: int) -> None:
    command = [sys.executable, "-P", str(Path(__file__).with_name("archive_worker.py")), str(path.absolute()), str(folder)]  # fmt: skip
    unsafe = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    environment = {name: value for name, value in os.environ.items() if name not in unsafe}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=180 + size // 20_000_000, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{path} takes too long to read; it may be damaged: get it again") from error
    except OSError as error:
        raise UserError(f"can't start the process that reads {path}: {error.strerror or error}") from error
    if done.returncode:
        raise UserError(_reason(path, done.returncode, done.stderr[-4000:].decode("utf-8", "replace").strip()))


def _reason(path: Path, code: int, written: str) -> str:
    line = written.splitlines()[-1] if written else ""
    if "weights_only" in line.lower() or "UnpicklingError" in line:
        found = _UNKNOWN.search(line)
        what = f"the object {found[1][:80]}" if found else "an object that is neither tensor nor number"
        return f"{path} holds {what}, which is never unpickled: save the state dict and plain settings alone"
    if "No space left" in line:
        return f"there is no space for the tensors of {path} in {tempfile.gettempdir()}; set TMPDIR to another folder"
    if code < 0 or "MemoryError" in line or "memory" in line.lower():
        return f"{path} takes too much memory or time to read; it may be damaged: get it again"
    return f"{path} can't be read ({line.partition(': ')[2][:200] or 'its reader ended'}); get it again"
