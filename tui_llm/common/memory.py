"""How much memory is free, and whether that is enough: asked before anything large is made. No torch here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tui_llm.common.errors import UserError

_CGROUPS = Path("/sys/fs/cgroup")


def resident_bytes() -> int | None:
    """Memory that this process holds now; where the system only tells the most it ever held, that; None where neither."""
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


def free_bytes() -> int | None:
    """Bytes of main memory that this process can still take: what is free, or less where a limit (a container's, ulimit's)
    says so. None where the system doesn't tell."""
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
    try:  # macOS: all that the machine has, which it gives by moving others' memory aside
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - (resident_bytes() or 0)
    except (OSError, ValueError, AttributeError):
        return


def _free_in_cgroups() -> Iterator[int]:
    """What the limits of this process's control group, and of those above it, leave: version 2, then 1."""
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
            except (OSError, ValueError):  # no such group (a container sees its own as the root), or no limit: `max`
                continue


def _reclaimable(folder: Path) -> int:
    """Bytes of a control group that only cache files: they are given up when memory is asked for."""
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
    """Bytes of main memory that this process could hold at most: what it holds and what is free to it. None where the system
    doesn't tell."""
    free = free_bytes()
    return None if free is None else free + (resident_bytes() or 0)


def check(need: int, free: int | None, what: str) -> None:
    """Raises `UserError`, with both figures, where `need` bytes are more than are `free` (None: nobody knows)."""
    if free is not None and need > free:
        raise UserError(
            f"{what} needs about {size(need)} of memory and {size(free)} are free; close something, or take a smaller one"
        )


def size(count: float) -> str:
    """312 MB, 1.4 GB."""
    return f"{count / 1e9:,.1f} GB" if count >= 999.5e6 else f"{count / 1e6:.0f} MB"


@contextmanager
def enough(what: str) -> Iterator[None]:
    """Turns every way in which Python and torch say that memory is short into one line: "there is not enough memory to" `what`.

    Raises `UserError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(error, RuntimeError) and not _is_short(error):
            raise
        raise UserError(f"there is not enough memory to {what}; close something, or take a smaller one") from error


def _is_short(error: BaseException) -> bool:
    text = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or "not enough memory" in text or "out of memory" in text or (
        "memory" in text and "alloc" in text
    )  # fmt: skip
