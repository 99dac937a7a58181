"""Limit what torch's oneDNN kernels cache in memory. No torch here: call it before torch is imported."""

from __future__ import annotations

from tui_llm.common.library_environment import set_default

_ENTRIES = "64"  # a forward pass of a GPT has five shapes, so these are about the last dozen of text lengths
_CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")


def limit_caches() -> None:
    """Cache the kernels of the last 64 shapes instead of 1,024, in both of the caches that torch has on a CPU.

    Each length of text has shapes of its own: 1,200 texts of random length made nano's process grow by 500 MB, and with
    64 entries by 26 MB in the same time. LRU_CACHE_CAPACITY belongs to ideep, torch's layer over oneDNN
    (github.com/intel/ideep/issues/14, github.com/pytorch/pytorch/issues/27971), ONEDNN_PRIMITIVE_CACHE_CAPACITY to
    oneDNN (its developer guide, "Primitive Cache").

    A variable that the user has set keeps its value; a training worker uses the default.
    """
    for name in _CACHES:
        set_default(name, _ENTRIES)
