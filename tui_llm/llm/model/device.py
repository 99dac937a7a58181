"""Choose the device, the precision and the number of CPU threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from tui_llm.common import memory
from tui_llm.common.errors import UserError
from tui_llm.llm.model import torch_private
from tui_llm.llm.model.device_names import check_device


def choose(name: str = "auto") -> torch.device:
    """The device named `name`; `auto` selects CUDA, else MPS, else the CPU. Raises `UserError` if it is unavailable."""
    kind, _, index = check_device(name).partition(":")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if kind == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if kind == "cuda" and not cuda:
        from tui_llm.llm.model.device_gauges import why_no_cuda  # needed here only

        if why := why_no_cuda():
            raise UserError(f"{why}; or compute on the CPU: --device cpu")
    if (kind == "cuda" and not cuda) or (kind == "mps" and not mps):
        raise UserError(f"this machine has no {kind} device that torch can use; try --device auto")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise UserError(f"there is no {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return torch.device(name)


def trains_in_bfloat16(device: torch.device) -> bool:
    """Whether bf16 autocast is faster on `device`: CUDA GPUs and CPUs with native bf16 products."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch_private.multiplies_in_bfloat16()
    return False


# Below this many multiply-adds a second thread costs more than it saves: it has to be woken and waited for, and the
# wait is much longer while a training run uses the cores (measured: dev/LOG.md).
_WORTH_THREADS = 100_000_000
_ALL = torch.get_num_threads()


def use_threads(count: int) -> None:
    """Set the maximum number of CPU threads."""
    global _ALL
    _ALL = count
    torch.set_num_threads(count)


def most_threads() -> int:
    """The maximum number of CPU threads."""
    return _ALL


@contextlib.contextmanager
def threads(work: int) -> Iterator[None]:
    """Context manager: use one CPU thread if `work`, in multiply-adds, is small, and all threads otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(_ALL if work >= _WORTH_THREADS else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def free_bytes(place: torch.device) -> int | None:
    """Bytes of free memory on the device; None if unknown."""
    return torch.cuda.mem_get_info(place)[0] if place.type == "cuda" else memory.free_bytes()
