"""The child process of `archive.py`: a `torch.save` file's tensors, as safetensors. Runs as a script of its own, and
imports nothing of the package.

    python archive_worker.py FILE FOLDER

Writes `tensors.safetensors` and `settings.json` into FOLDER. torch's weights-only loader builds tensors, numbers, text
and containers only; it refuses any other object by name.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_MORE = 1 << 30  # bytes of address space beyond what the file itself needs
_MOST_TENSORS, _MOST_NAME = 200_000, 1000


def limit(size: int) -> None:
    """Limit this process's memory, CPU time and output, for a file of `size` bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = 0
    with suppress(OSError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    seconds = 120 + size // 20_000_000
    limits = [(resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, size + (64 << 20)), (resource.RLIMIT_CORE, 0)]
    if used:  # without it the libraries' own address space is unknown
        limits.append((resource.RLIMIT_AS, used + 4 * size + _MORE))
    for kind, most in limits:
        hard = resource.getrlimit(kind)[1]
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def tensors_of(state: Any, size: int) -> tuple[dict[str, Any], dict[str, str]]:
    """The distinct tensors of a state dict, and the names of those that are another one: name → the first one's."""
    import torch

    if not isinstance(state, dict) or not state or len(state) > _MOST_TENSORS:
        raise ValueError("it holds no state dict of a model")
    tensors: dict[str, Any] = {}
    same: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    numbers = 0
    for name, value in state.items():
        if not isinstance(name, str) or len(name) > _MOST_NAME or type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise ValueError(f"{str(name)[:80]!r} in it is not a tensor")
        value = value.detach()
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise ValueError(f"the tensor {name[:80]!r} is not a plain one")
        key = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if value.numel() and key in seen:
            same[name] = seen[key]
            continue
        numbers += value.numel() * value.element_size()
        if numbers > size:  # strides of 0 make large tensors of few numbers
            raise ValueError("its tensors are larger than the file")
        seen[key] = name
        tensors[name] = value
    return {name: value.contiguous().clone() for name, value in tensors.items()}, same


def main(file: str, folder: str) -> None:
    import torch
    from safetensors.torch import save_file

    size = Path(file).stat().st_size
    limit(size)
    loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    inner = loaded.get("model") if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict) else None
    tensors, same = tensors_of(loaded if inner is None else inner, size)
    save_file(tensors, Path(folder) / "tensors.safetensors")
    settings = loaded.get("model_args") if inner is not None else None
    plain = {
        str(key)[:100]: value
        for key, value in (settings.items() if isinstance(settings, dict) else ())
        if isinstance(value, bool | int | float | str) or value is None
    }
    step = loaded.get("iter_num") if inner is not None else None
    record = {
        "model_args": None if settings is None else plain,
        "same": same,
        "step": step if type(step) is int else None,
    }
    (Path(folder) / "settings.json").write_text(json.dumps(record), "utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2])
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        sys.stderr.buffer.write(f"\n{type(error).__name__}: {text[:2000]}\n".encode("utf-8", "replace"))
        sys.exit(1)
