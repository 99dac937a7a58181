"""Memory while texts of many lengths are read: oneDNN's caches of kernels have a limit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

NAMES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
READ = """
import random, sys
from tui_llm.common.onednn import limit_caches
if sys.argv[1] == "limited":
    limit_caches()
assert "torch" not in sys.modules
from tui_llm.common import memory
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request

engine = PipelineEngine("cpu")
engine.open("nano")
lengths = random.Random(1).sample(range(2, 250), 120)

def read(length):
    engine.read(Request(prompt=f"{length}" + " cat" * length))

read(250), read(3)
memory.trim()
before = memory.resident_bytes()
for length in lengths:
    read(length)
memory.trim()
print((memory.resident_bytes() - before) / 1e6)
"""


def run(code: str, *arguments: str, **variables: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", code, *arguments]
    environment = {**clean, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory as Linux reports it")
def test_texts_of_many_lengths_do_not_fill_the_memory() -> None:
    """Without the limit it is about 250 MB on a CPU where fp32 runs through oneDNN."""
    assert float(run(READ, "limited")) < 80


@pytest.mark.skipif(os.name != "posix", reason="putenv")
@pytest.mark.parametrize(("given", "wanted"), [({}, "64 64"), ({NAMES[0]: "7"}, "7 64")])
def test_the_limits_leave_os_environ_and_the_user_s_own_values(given: dict[str, str], wanted: str) -> None:
    code = f"""
import ctypes, os
from tui_llm.common.onednn import limit_caches
before = dict(os.environ)
limit_caches()
assert dict(os.environ) == before
get = ctypes.CDLL(None).getenv
get.restype = ctypes.c_char_p
print(*((get(name.encode()) or b"-").decode() for name in {NAMES!r}))
"""
    assert run(code, **given) == wanted
