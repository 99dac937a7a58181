"""Steering vectors as safetensors files: one tensor, `direction` (C,), with how it was made as metadata."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tui_llm.common.errors import UserError

NAME = "direction"


def read(file: str) -> Tensor:
    """The vector in `file`, float32. Raises `UserError` if there is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from tui_llm.common.foreign_files import open_foreign

    path = Path(file).expanduser()
    try:
        with open_foreign(path):  # a regular file within the bound of size
            pass
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} can't be read as a steering vector: {error}") from error
    if NAME not in tensors or tensors[NAME].dim() != 1 or not bool(tensors[NAME].isfinite().all()):
        raise UserError(f"{file} holds no steering vector: a finite tensor {NAME!r} of one dimension")
    return tensors[NAME].float()
