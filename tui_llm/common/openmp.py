"""Set how long idle OpenMP threads spin before they sleep. No torch here: call it before torch is imported."""

from __future__ import annotations

from tui_llm.common.library_environment import set_default

_ROUNDS = "20000"  # about half a millisecond: longer than the gap between two products, far shorter than a time slice


def wait_briefly() -> None:
    """Let idle threads of GNU OpenMP, torch's on Linux, sleep soon. By default they spin for some milliseconds, on
    cores that the threads they wait for may need: beside a training run, every product took a whole time slice.

    A training worker uses the default. If the user has set GOMP_SPINCOUNT or OMP_WAIT_POLICY, nothing is changed.
    """
    set_default("GOMP_SPINCOUNT", _ROUNDS, unless=["OMP_WAIT_POLICY"])
