"""Model FLOPs utilization and memory, computed from a run's files. Does not import torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def mfu(facts: Mapping[str, Any], tokens_per_second: float | None) -> float | None:
    """Returns the model FLOPs utilization (MFU) as a fraction: tokens/s × FLOPs per token ÷ peak FLOP/s.

    The definition is that of PaLM (Chowdhery et al. 2022, appendix B): recomputed activations do not count.

    `facts` is the content of the run's status.json: `flops_per_token` (see `cost.flops_per_token`), `peak_flops` (of
    one process's device, measured by `llm/model/machine.py` in the precision of the run's matrix products), and
    `processes` (default 1). Returns None if one of the values is missing.
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


def flops_text(rate: float) -> str:
    """Formats a number of FLOP/s: 98 GFLOP/s, 1.2 TFLOP/s."""
    return f"{rate / 1e12:.3g} TFLOP/s" if rate >= 999.5e9 else f"{rate / 1e9:.3g} GFLOP/s"
