"""Free memory, checked before large allocations. No torch here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.common.numbers import memory_size

_CGROUPS = Path("/sys/fs/cgroup")
_M_MMAP_THRESHOLD = -3  # malloc.h of glibc


def resident_bytes() -> int | None:
    """Bytes of memory that this process uses now (Linux), or its peak if only that is available; None if neither is."""
    try:
        return _statm()[1]
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _statm() -> list[int]:
    """This process's address space and resident memory, in bytes (Linux)."""
    page = os.sysconf("SC_PAGE_SIZE")
    return [int(pages) * page for pages in Path("/proc/self/statm").read_text().split()[:2]]


def trim() -> None:
    """Return freed memory to the system. glibc keeps what was freed between blocks that are still in use, also hundreds
    of MB after a large model was closed; other C libraries have no such call."""
    if sys.platform == "linux":
        import ctypes

        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)


def map_large_blocks() -> None:
    """Allocate every block of 256 KiB or more in pages of its own, which go back to the system when it is freed.

    By default, glibc raises this limit (M_MMAP_THRESHOLD, mallopt(3)) up to 32 MiB as such blocks are freed. Large
    tensors then lie among small blocks, and much of the memory between them stays with the process. A fixed limit costs a
    page fault for every 4 KiB: with 128 KiB, reading 250 tokens with nano took 1.5 times as long, with 256 KiB 1.1 times.

    A limit that the user has set for malloc stays; other C libraries have no such call.
    """
    own = "MALLOC_MMAP_THRESHOLD_" in os.environ or "malloc.mmap_threshold" in os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform == "linux" and not own:
        import ctypes

        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 256 * 1024)


def free_bytes() -> int | None:
    """Bytes of memory that this process can still allocate: what is free on the machine, or less under a limit (cgroup,
    ulimit). None if unknown."""
    free = [*_free_on_machine(), *_free_in_cgroups(), *_free_in_limits()]
    return max(0, min(free)) if free else None


def _free_on_machine() -> Iterator[int]:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
                return
    except (OSError, ValueError, IndexError):
        pass
    try:  # macOS: all of the memory, which the system frees on demand
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - (resident_bytes() or 0)
    except (OSError, ValueError, AttributeError):
        return


def _free_in_cgroups() -> Iterator[int]:
    """What the memory limits of this process's cgroup and its ancestors leave: version 2, then 1."""
    try:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, name in (line for line in lines if len(line) == 3):
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        top = _CGROUPS / "memory" if controllers else _CGROUPS
        files = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        place = top / name.lstrip("/")
        for folder in (place, *place.parents):
            if folder != top and top not in folder.parents:
                break
            try:
                limit, used = (int((folder / file).read_text()) for file in files)
                yield limit - used + _reclaimable(folder)
            except (OSError, ValueError):  # no such group (a container sees its own as the root), or no limit (`max`)
                continue


def _reclaimable(folder: Path) -> int:
    """Bytes of a cgroup's inactive page cache, which the kernel reclaims on demand."""
    for line in (folder / "memory.stat").read_text().splitlines():
        if line.startswith(("inactive_file ", "total_inactive_file ")):
            return int(line.split()[1])
    return 0


def _free_in_limits() -> Iterator[int]:
    try:
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            yield soft - _statm()[0]
    except (ImportError, OSError, ValueError, IndexError):
        return


def memory_limit() -> int | None:
    """Bytes of memory that this process could use in all: used and free. None if unknown."""
    free = free_bytes()
    return None if free is None else free + (resident_bytes() or 0)


class NotEnoughMemory(UserError):
    """Something is too large for the memory that is free now."""


def check(need: int, free: int | None, what: str) -> None:
    """Raises `NotEnoughMemory`, with both figures, if `need` bytes exceed `free` (None: unknown)."""
    if free is not None and need > free:
        raise NotEnoughMemory(
            f"{what} needs about {memory_size(need)} of memory and {memory_size(free)} are free; close other programs, or choose a smaller one"
        )


@contextmanager
def enough(what: str) -> Iterator[None]:
    """Convert out-of-memory exceptions of Python and torch to `NotEnoughMemory`: "there is not enough memory to" `what`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_short(error):
            raise
        raise NotEnoughMemory(
            f"there is not enough memory to {what}; close other programs, or choose a smaller one"
        ) from error


def is_short(error: BaseException) -> bool:
    """Whether memory ran out: torch's CPU allocator raises a plain RuntimeError."""
    text = str(error).lower()
    if not isinstance(error, RuntimeError):  # torch.OutOfMemoryError is one
        return isinstance(error, MemoryError)
    return (
        type(error).__name__ == "OutOfMemoryError"
        or "not enough memory" in text
        or "out of memory" in text
        or ("memory" in text and "alloc" in text)
    )
