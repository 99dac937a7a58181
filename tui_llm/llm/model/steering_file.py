"""Steering vectors as safetensors files: one tensor, `direction` (C,), with how it was made as metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.model import small_tensors

NAME = "direction"
FORMAT = "tui-llm steering vector"
_MOST = 16 << 20  # bytes; the widest models known have a few times 10,000 numbers
_LAYER = re.compile(r"\d{1,6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SteeringFile:
    """A steering vector (C,), float32, and what its file says of it: each is empty or None where it says nothing.

    layer: it was read from the residual stream before this block. toward, against: the prompts it is the difference of.
    """

    direction: Tensor
    layer: int | None = None
    model: str = ""
    toward: str = ""
    against: str = ""


def read(file: str) -> Tensor:
    """The vector in `file`, float32. Raises `UserError` if there is none."""
    return load(file).direction


def load(file: str) -> SteeringFile:
    """The vector in `file`, and its metadata. Raises `UserError` if there is none."""
    from safetensors import SafetensorError, safe_open

    from tui_llm.common.foreign_files import open_foreign

    path = paths.expand(file)
    try:
        with open_foreign(path, _MOST):  # a regular file within the bound of size
            pass
        with safe_open(path, "pt") as opened:
            metadata: Mapping[str, str] = opened.metadata() or {}
            vector = opened.get_tensor(NAME) if NAME in opened.keys() else None  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{file} can't be read as a steering vector: {' '.join(str(error).split())}") from error
    if (
        vector is None
        or vector.dim() != 1
        or not len(vector)
        or not vector.is_floating_point()
        or not vector.isfinite().all()
    ):
        raise UserError(f"{file} holds no steering vector: a finite tensor {NAME!r} of one dimension")
    vector = vector.float()
    if not vector.norm().isfinite():
        raise UserError(
            f"{file} holds a steering vector whose norm is beyond the range of float32; no model has such values"
        )
    layer = metadata.get("layer", "")
    return SteeringFile(
        vector,
        int(layer) if _LAYER.fullmatch(layer) else None,
        metadata.get("model", ""),
        metadata.get("toward", ""),
        metadata.get("against", ""),
    )


def save(path: Path, made: SteeringFile, *, force: bool = False) -> None:
    """Write a vector under `path`. Raises `UserError` if it can't be written, `new_files.AlreadyExists` if the file
    exists and `force` is not set; an existing file is then unchanged."""
    from tui_llm.common import storage
    from tui_llm.common.new_files import write_new

    data = to_bytes(made)
    write_new(path, lambda part: storage.write_bytes(part, data), force=force)


def to_bytes(made: SteeringFile) -> bytes:
    """The file's bytes, the same for the same direction."""
    metadata = {
        "format": FORMAT,
        "layer": "" if made.layer is None else str(made.layer),
        "model": made.model,
        "toward": made.toward,
        "against": made.against,
    }
    return small_tensors.to_bytes({NAME: made.direction.float()}, metadata)
