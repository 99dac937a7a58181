"""Waiting OpenMP threads sleep soon: in this process, and in the workers that it starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tui_llm.common import openmp
from tui_llm.training.plan import processes

SHOW = """
import ctypes, os, subprocess, sys
from tui_llm.common.openmp import wait_briefly
wait_briefly()
get = ctypes.CDLL(None).getenv
get.restype = ctypes.c_char_p
print((get(b"GOMP_SPINCOUNT") or b"").decode() or "-", os.environ.get("GOMP_SPINCOUNT", "-"), "torch" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP's")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "20000 - False"),
        ({"GOMP_SPINCOUNT": "7"}, "7 7 False"),
        ({"OMP_WAIT_POLICY": "active"}, "- - False"),
    ],
)
def test_the_openmp_setting_is_local_to_this_process(given: dict[str, str], said: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env={**clean, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == said.split()


@pytest.mark.parametrize(
    ("given", "wanted"), [({}, "20000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_a_worker_gets_the_setting(given: dict[str, str], wanted: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert processes.child_environment().get("GOMP_SPINCOUNT") == wanted
    assert openmp.variables() == ({"GOMP_SPINCOUNT": "20000"} if not given else {})
