"""Memory that was freed goes back to the system, also where small blocks lie between large ones."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

LEFT = """
import ctypes, sys
from tui_llm.common import memory
if sys.argv[1] == "mapped":
    memory.map_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def large():
    block = libc.malloc(400_000)
    ctypes.memset(block, 1, 400_000)
    return block

for _ in range(2):
    libc.free(large())  # from here on, glibc's default takes such blocks from the heap
before = memory.resident_bytes()
blocks, kept = [], []
for _ in range(200):  # 80 MB
    blocks.append(large())
    kept.append(libc.malloc(20_000))
for block in blocks:
    libc.free(block)
print((memory.resident_bytes() - before) / 1e6)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt of glibc")
@pytest.mark.parametrize(
    ("how", "variables", "least", "most"),
    [
        ("default", {}, 60, 100),
        ("mapped", {}, -1, 10),
        ("mapped", {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=3"}, -1, 10),
        ("mapped", {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000"}, 60, 100),
        ("mapped", {"MALLOC_MMAP_THRESHOLD_": "1000000"}, 60, 100),
    ],
)
def test_freed_blocks_between_small_ones(how: str, variables: dict[str, str], least: float, most: float) -> None:
    """A limit that the user has set stays: those blocks come from the heap."""
    clean = {
        name: value for name, value in os.environ.items() if name not in ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    }
    done = subprocess.run(
        [sys.executable, "-c", LEFT, how], env=clean | variables, capture_output=True, text=True, check=True
    )
    assert least < float(done.stdout) < most
