"""Check whether torch can be loaded under a limit of the address space (`ulimit -v`). If it can't, its libraries don't
raise but terminate the program ("terminate called after throwing an instance of 'std::bad_alloc'"). No torch here."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

try:
    import resource
except ImportError:  # not available on Windows
    resource = None  # type: ignore[assignment]

SHORT = "there is not enough memory for this; close other programs, raise its limit (ulimit -v), or use a smaller model"
LIBRARIES = ("libtorch_cpu.so", "libtorch_cuda.so")  # the largest libraries
BESIDE = 310_000_000  # bytes for its other libraries, numpy's, and their first allocations (torch 2.13, one thread)
A_THREAD = 80_000_000  # bytes per additional thread: stack and malloc arena


def check_before_torch() -> None:
    """From here on, `import torch` raises MemoryError if the limit is too low for it."""
    if "torch" in sys.modules or any(isinstance(finder, _Gate) for finder in sys.meta_path):
        return
    if is_limited():
        sys.meta_path.insert(0, _Gate())


def is_limited() -> bool:
    return resource is not None and resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


class _Gate:
    """A meta path finder that finds nothing, but checks the limit when torch is imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)  # so that find_spec below does not call this finder again
        found = importlib.util.find_spec("torch")
        if found is not None and found.origin and _free() < _needed(Path(found.origin).parent):
            sys.meta_path.insert(0, self)
            raise MemoryError(SHORT)
        return None


def _needed(torch: Path) -> int:
    libraries = [torch / "lib" / name for name in LIBRARIES]
    threads = os.environ.get("OMP_NUM_THREADS", "")
    more = (int(threads) if threads.isdecimal() else os.cpu_count() or 1) - 1
    return BESIDE + min(more, 64) * A_THREAD + sum(path.stat().st_size for path in libraries if path.is_file())


def _free() -> float:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else limit - _used()


def _used() -> int:
    """Bytes of address space in use; 0 if unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()
