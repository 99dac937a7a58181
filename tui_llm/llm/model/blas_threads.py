"""Import numpy with one BLAS thread: its matrix products here are too small for more (`device.threads` does the same for
torch). No torch here."""

from __future__ import annotations

import os
import sys

from tui_llm.common.library_environment import set_default

_VARIABLE = "OPENBLAS_NUM_THREADS"  # of the BLAS in numpy's wheels, which reads it when it is loaded


def import_numpy() -> None:
    """Has no effect if numpy has been imported before, or if the user has set the number of threads."""
    if "numpy" in sys.modules or not set_default(_VARIABLE, "1"):
        return
    try:
        import numpy  # noqa: F401
    finally:
        os.unsetenv(_VARIABLE)
