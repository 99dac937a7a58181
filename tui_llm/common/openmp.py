"""Set how long idle OpenMP threads spin before they sleep. No torch here: call it before torch is imported."""

from __future__ import annotations

import os

from tui_llm.common.library_environment import set_default

_VARIABLE, _UNLESS = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
_ROUNDS = "20000"  # about half a millisecond: longer than the gap between two products, far shorter than a time slice


def wait_briefly() -> None:
    """Let idle threads of GNU OpenMP, torch's on Linux, sleep soon. By default they spin for some milliseconds, on
    cores that the threads they wait for may need: beside a training run, every product took a whole time slice.

    A training worker gets the same from `variables`. If the user has set GOMP_SPINCOUNT or OMP_WAIT_POLICY, nothing is changed.
    """
    set_default(_VARIABLE, _ROUNDS, unless=[_UNLESS])


def variables() -> dict[str, str]:
    """The environment variables with which a subprocess does the same; none if the user has set one of them."""
    return {} if {_VARIABLE, _UNLESS} & os.environ.keys() else {_VARIABLE: _ROUNDS}
