"""Tuned lenses as safetensors files beside the weights that they were fitted to: `weight` (N, C, C) and `bias` (N, C) in
float16, with the SHA-256 of those weights and how the lens was made as metadata."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.common.foreign_files import open_foreign
from tui_llm.llm.model import shards, small_tensors
from tui_llm.llm.model.tensor_shapes import read_header
from tui_llm.llm.model.tuned_lens import TunedLens

NAME = "tuned_lens.safetensors"
FORMAT = "tui-llm tuned lens"
_DIGEST = "weights_sha256"
_BLOCK = 1 << 22  # bytes hashed at a time


def path_of(model: Path) -> Path:
    """Where the tuned lens of a model folder or file is."""
    return model.with_name(f"{model.stem}.{NAME}") if model.is_file() else model / NAME


def weights_digest(model: Path, overtaken: Callable[[], bool] = lambda: False) -> str:
    """The SHA-256 of a model's weight files, one after another, in hexadecimal; of a single file, what `sha256sum`
    prints. Cached by inode, size and modification time. Raises `UserError`, and `Overtaken`."""
    files = [model] if model.is_file() else shards.weight_files(model)
    if not files:
        raise UserError(f"{model} has no {shards.WHOLE}")
    try:
        stats = [file.stat() for file in files]
    except OSError as error:
        raise UserError(f"{model} can't be read: {error.strerror or error}") from error
    marks = tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in stats)
    digest = _digests.get((model, marks))
    if digest is None:
        digest = _digests[model, marks] = _digest(files, overtaken)
    return digest


_digests: dict[tuple[Path, tuple[tuple[int, int, int], ...]], str] = {}


def _digest(files: list[Path], overtaken: Callable[[], bool]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with open_foreign(file) as data:
            for block in iter(functools.partial(data.read, _BLOCK), b""):
                if overtaken():
                    raise Overtaken
                digest.update(block)
    return digest.hexdigest()


def load(path: Path, digest: str, layers: int, width: int) -> TunedLens:
    """The lens in `path`, in float32. Raises `UserError` if it is damaged, or of other weights than those with the
    SHA-256 `digest`."""
    from safetensors import SafetensorError, safe_open

    try:
        with open_foreign(
            path, 4 * layers * (width + 1) * width + (1 << 20)
        ):  # a regular file within the bound of size
            pass
        shapes = {name: tensor.shape for name, tensor in read_header(path).items()}
        with safe_open(path, "pt") as opened:
            metadata: Mapping[str, str] = opened.metadata() or {}
            if metadata.get("format") != FORMAT or not metadata.get(_DIGEST):
                raise UserError(f"{path} is not a tuned lens of tui-llm")
            if metadata[_DIGEST] != digest:
                raise UserError(
                    f"{path} was fitted to other weights (SHA-256 {metadata[_DIGEST][:12]}, these have {digest[:12]})"
                )
            wanted = {"weight": (layers, width, width), "bias": (layers, width)}
            if shapes != wanted:
                raise UserError(f"{path} is damaged: it should have {wanted}, and has {shapes}"[:300])
            weight, bias = (opened.get_tensor(name) for name in wanted)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path} can't be read as a tuned lens: {' '.join(str(error).split())}") from error
    for tensor in (weight, bias):
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise UserError(f"{path} is damaged: it has NaN or infinite numbers")
    return TunedLens(weight.float(), bias.float())


def save(path: Path, lens: TunedLens, digest: str, made: Mapping[str, str], *, force: bool = False) -> None:
    """Write a lens that was fitted to the weights with the SHA-256 `digest`; `made` says how. Raises `UserError` if it
    can't be written, `new_files.AlreadyExists` if the file exists and `force` is not set; an existing file is then
    unchanged."""
    from tui_llm.common import storage
    from tui_llm.common.new_files import write_new

    tensors = {"weight": lens.weight.to(torch.float16), "bias": lens.bias.to(torch.float16)}
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise UserError("the lens has numbers over the 65,504 of float16, so it was not saved: fit it with more steps")
    data = small_tensors.to_bytes(tensors, {"format": FORMAT, _DIGEST: digest, **made})
    write_new(path, lambda part: storage.write_bytes(part, data), force=force)
