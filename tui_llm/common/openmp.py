"""How long a thread that waits for others looks out for them before it sleeps. No torch here: say it before torch comes."""

from __future__ import annotations

import os

_ROUNDS = "20000"  # about half a millisecond: longer than what lies between two products, far shorter than a time slice


def wait_briefly() -> None:
    """Has GNU OpenMP's threads, torch's on Linux, sleep soon. As it comes, one that waits turns for milliseconds on a core
    that the thread it waits for may need: beside a training run, every product took a whole time slice.

    Only for this process: `os.environ` is left as it is, so that a training worker has the cores as it wishes. Whoever
    has set either variable is obeyed."""
    if os.name == "posix" and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.putenv("GOMP_SPINCOUNT", _ROUNDS)
