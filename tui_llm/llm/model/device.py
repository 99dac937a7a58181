"""Choose the device, the precision and the number of CPU threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from tui_llm.common import memory
from tui_llm.common.errors import UserError
from tui_llm.llm.model import cpu_reader, gpu_problems, torch_private
from tui_llm.llm.model.device_names import check_device, is_cpu


def choose(name: str = "auto") -> torch.device:
    """The device named `name`; `auto` selects CUDA, else MPS, else the CPU. Raises `UserError` if it is unavailable."""
    kind, _, index = check_device(name).partition(":")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if kind == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if kind == "cuda" and not cuda:
        raise UserError(
            f"there is no cuda device that torch can use: {gpu_problems.why_no_cuda()}; or try --device auto"
        )
    if kind == "mps" and not mps:
        raise UserError(f"this machine has no {kind} device that torch can use; try --device auto")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise UserError(f"there is no {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return torch.device(name)


def trains_in_bfloat16(device: torch.device) -> bool:
    """Whether bf16 products are faster on `device`: CUDA GPUs and CPUs with instructions for them.

    Intel's CPUs need AMX: with AVX-512's bf16 alone, a training step took 1.01 to 1.40 times as long as in fp32
    (Emerald Rapids; dev/LOG.md). AMD's CPUs gain from these instructions.
    """
    if device.type == "cuda":
        return has_bfloat16(device)
    if device.type == "cpu" and torch_private.multiplies_in_bfloat16():
        return "Intel" not in cpu_reader.cpu_name() or torch_private.has_amx()
    return False


def has_bfloat16(device: torch.device) -> bool:
    """Whether a GPU has bf16 products: NVIDIA's from compute capability 8.0 (Ampere) on, and AMD's."""
    return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)


def note(name: str, place: torch.device, precision: str) -> str:
    """What a user of `place` should know: that a GPU is there but not used though `name` is auto, or that it has no bf16.
    Empty if there is nothing."""
    if name == "auto" and place.type == "cpu" and not is_cpu("auto"):
        if torch.backends.mps.is_available() or torch.version.cuda is None or not (why := gpu_problems.why_no_cuda()):
            return ""
        return f"on the CPU: {why}. "
    if place.type == "cuda" and precision != "fp32" and not has_bfloat16(place):
        what = f"{torch.cuda.get_device_name(place)} has no bf16"
        return f"{what}: products are in fp32. " if precision == "auto" else f"{what} and emulates it: fp32 is faster. "
    return ""


# Below this many multiply-adds a second thread costs more than it saves: it has to be woken and waited for, and the
# wait is much longer while a training run uses the cores (measured: dev/LOG.md).
_WORTH_THREADS = 100_000_000
_ALL = torch.get_num_threads()


def use_threads(count: int) -> None:
    """Set the maximum number of CPU threads; 0 leaves it as it is."""
    global _ALL
    if not count:
        return
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
