"""What is read off a run while it trains, beside its losses: how much of the machine it uses. No torch here."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def mfu(facts: Mapping[str, Any], tokens_per_second: float | None) -> float | None:
    """Model FLOPs utilisation, as a fraction: tokens/s × the model's operations for a token ÷ what the machine can do
    (PaLM, Chowdhery et al. 2022, appendix B). What is computed twice (recomputed activations) counts once.

    `facts` are those of the run's status.json: `flops_per_token` (see `cost.flops_per_token`), `peak_flops` (one
    process's device, measured by `llm/machine.py` in the precision that the run multiplies in), and `processes` where
    they are several. None where one of them isn't known.
    """
    flops, peak = _positive(facts.get("flops_per_token")), _positive(facts.get("peak_flops"))
    rate, processes = _positive(tokens_per_second), _positive(facts.get("processes", 1))
    if flops is None or peak is None or rate is None or processes is None:
        return None
    return rate * flops / (peak * processes)


def _positive(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < sys.float_info.max else None


def resident_bytes() -> int | None:
    """Memory that this process holds now; where the system only tells the most it ever held, that; None where neither."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def memory_limit() -> int | None:
    """Bytes of main memory that this process could hold at most: what it holds and what is free, or less where a limit
    (a container's, ulimit's) says so. None where the system doesn't tell."""
    limits: list[int] = []
    held = resident_bytes() or 0
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024 + held)
    except (OSError, ValueError, IndexError):
        pass
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # `max`
            continue
    try:
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            limits.append(soft)
    except (ImportError, OSError):
        pass
    return min(limits, default=None)


def bytes_text(count: float) -> str:
    """312 MB, 1.4 GB."""
    if not math.isfinite(count):
        return "–"
    return f"{count / 1e9:.1f} GB" if count >= 999.5e6 else f"{count / 1e6:.0f} MB"


def flops_text(rate: float) -> str:
    """98 GFLOP/s, 1.2 TFLOP/s."""
    return f"{rate / 1e12:.3g} TFLOP/s" if rate >= 999.5e9 else f"{rate / 1e9:.3g} GFLOP/s"
