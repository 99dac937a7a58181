"""Limit what torch's oneDNN kernels cache in memory. No torch here: call it before torch is imported."""

from __future__ import annotations

import os

_ENTRIES = "64"  # each about 90 kB; a forward pass has five shapes, so this is the last dozen of text lengths
_CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")


def limit_caches() -> None:
    """Cache the kernels of the last 64 shapes instead of 1,024, in both of the caches that torch has on a CPU.

    Each length of text has shapes of its own, so reading texts of varied lengths filled 500 MB; with 64 it is 26 MB,
    and takes as long. LRU_CACHE_CAPACITY is described in PyTorch's performance tuning guide,
    ONEDNN_PRIMITIVE_CACHE_CAPACITY in oneDNN's developer guide.

    Affects this process only: `os.environ` is unchanged. What the user has set is not changed.
    """
    if os.name == "posix":
        for name in _CACHES:
            if name not in os.environ:
                os.putenv(name, _ENTRIES)
