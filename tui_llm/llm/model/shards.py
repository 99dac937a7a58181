"""The weights of a model folder: one `model.safetensors`, or shards that `model.safetensors.index.json` lists. No torch
here.

Every file is checked before memory is allocated for it: a regular file beside the index, whose header fits its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_foreign, read_json
from tui_llm.llm.model.tensor_shapes import TensorInfo, read_header

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_BLOCK = 1 << 20  # bytes compared at a time


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor's header entry, and the file that holds it."""

    path: Path
    info: TensorInfo


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder, as transformers selects them; empty if it has neither `model.safetensors` nor an
    index. Raises `UserError` if the index lists anything but safetensors files beside it, or one that is missing."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    if not (folder / INDEX).is_file():
        return []
    return [folder / name for name in sorted(set(_places(folder / INDEX).values()))]


def _places(index: Path) -> dict[str, str]:
    """Tensor name → file name, from an index."""
    raw = read_json(index)
    places = raw.get("weight_map") if isinstance(raw, dict) else None
    if not isinstance(places, dict) or not places:
        raise UserError(f"{index} does not list the weight files; download it again")
    names = {name: str(place) for name, place in places.items()}
    for place in sorted(set(names.values())):
        if Path(place).name != place or not place.endswith(".safetensors") or not _is_file(index.parent / place):
            raise UserError(
                f"{index} names {place[:80]!r}, which is not a safetensors file beside it; download the complete model"
            )
    return names


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name is too long, or has a zero byte
        return False


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Tensor name → its entry, over all weight files of a folder; empty if it has none. Raises `UserError` if a file is
    damaged, if two files have the same tensor, or if a tensor is not in the file that the index names."""
    tensors: dict[str, StoredTensor] = {}
    files = weight_files(folder)
    for path in files:
        for name, info in read_header(path).items():
            if name in tensors:
                raise UserError(
                    f"{path} has the tensor {name[:80]}, and so has {tensors[name].path.name}; they are shards of different models"
                )
            tensors[name] = StoredTensor(path, info)
    if files and files[0].name != WHOLE:
        for name, place in _places(folder / INDEX).items():
            if name not in tensors or tensors[name].path.name != place:
                raise UserError(
                    f"{folder / INDEX} says that {name[:80]} is in {place}, which has no such tensor; download the complete model"
                )
    return tensors


def equal(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two tensors have the same type, shape and bytes. Raises `UserError` if a file can't be read."""
    if (one.info.dtype, one.info.shape) != (other.info.dtype, other.info.shape):
        return False
    with open_foreign(one.path) as left, open_foreign(other.path) as right:
        left.seek(one.info.begin)
        right.seek(other.info.begin)
        remaining = one.info.bytes
        while remaining > 0:
            size = min(_BLOCK, remaining)
            block = left.read(size)
            if not block or block != right.read(size):
                return False
            remaining -= len(block)
    return True
