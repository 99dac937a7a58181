"""The names of the devices. `device.choose` checks whether one is available."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.common.suggestions import no_such

DEVICES = ("auto", "cpu", "cuda", "mps")
_INDEX = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)


def check_device(name: str) -> str:
    """Return `name` if it is in `DEVICES`, or a GPU by its number, as `cuda:1`. Raises `UserError` otherwise."""
    kind, colon, index = name.partition(":")
    if kind not in DEVICES or (colon and (kind != "cuda" or not _INDEX.fullmatch(index))):
        raise UserError(no_such("device", name, DEVICES))
    return name


# What drivers of GPUs that torch can use put there: NVIDIA's, NVIDIA's in WSL and on Jetson boards, AMD's.
_DEVICE_FILES = ("nvidia*", "dxg", "nvmap", "nvhost-gpu", "kfd")


def is_cpu(name: str, devices: Path = Path("/dev")) -> bool:
    """Whether `device.choose(name)` is sure to be the CPU; found out without torch, so that False says nothing."""
    if name != "auto":
        return name == "cpu"
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" and sys.platform == "linux":
        return True  # CUDA and ROCm show no GPU then
    if sys.platform == "darwin":
        return platform.machine() == "x86_64"
    return sys.platform == "linux" and not any(any(devices.glob(pattern)) for pattern in _DEVICE_FILES)
