"""Which device to compute on, and in which precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from tui_llm.common import memory
from tui_llm.common.errors import UserError
from tui_llm.llm.model.device_names import check_device


def choose(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, else MPS, else the CPU. Raises `UserError` where the one asked for isn't there."""
    kind, _, index = check_device(name).partition(":")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if kind == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if (kind == "cuda" and not cuda) or (kind == "mps" and not mps):
        raise UserError(f"this machine has no {kind} device that torch can use; try --device auto")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise UserError(f"there is no {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return torch.device(name)


def trains_in_bfloat16(device: torch.device) -> bool:
    """Whether bf16 autocast is faster there: CUDA cards and CPUs that multiply in it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(check and check())
    return False


# Multiply-adds below which a second thread costs more than it brings: waking it, waiting for it, and, where a training
# run has the cores, waiting much longer (measured: dev/LOG.md).
_WORTH_THREADS = 100_000_000
_ALL = torch.get_num_threads()


def use_threads(count: int) -> None:
    """From now on, `count` CPU threads are all there are."""
    global _ALL
    _ALL = count
    torch.set_num_threads(count)


@contextlib.contextmanager
def threads(work: int) -> Iterator[None]:
    """One CPU thread for little work (counted in multiply-adds), all that torch has for much."""
    before = torch.get_num_threads()
    torch.set_num_threads(_ALL if work >= _WORTH_THREADS else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def free_bytes(place: torch.device) -> int | None:
    """Bytes of memory that are free there; None where nobody says."""
    return torch.cuda.mem_get_info(place)[0] if place.type == "cuda" else memory.free_bytes()
