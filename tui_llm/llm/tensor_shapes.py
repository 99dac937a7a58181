"""What a safetensors file says of itself in its header: its tensors' names and shapes. No torch here."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tui_llm.errors import UserError


def read_shapes(path: Path) -> dict[str, list[int]]:
    """Tensor name → shape, from a safetensors file's header alone. Raises `UserError` where it is no such file."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            if len(head) < 8:
                raise UserError(f"{path} is empty or cut short; get it again")
            (length,) = struct.unpack("<Q", head)
            if length > 100_000_000 or head[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
                raise UserError(f"{path} is not a safetensors file (a pickle, perhaps); nothing else is ever opened")
            header = json.loads(file.read(length))
        return {k: [int(n) for n in v["shape"]] for k, v in header.items() if k != "__metadata__"}
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not a safetensors file, or is damaged ({error}); get it again") from error
