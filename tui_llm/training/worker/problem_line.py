"""Why a subprocess could not answer, in the one line that its parent shows."""

from __future__ import annotations

from tui_llm.common.errors import UserError
from tui_llm.common.memory import is_short
from tui_llm.training.worker.distributed import Stopped
from tui_llm.training.worker.loop import Diverged

SMALLER = "try a smaller batch size, block size or model"
OTHERS = "stop what else uses the device"


def problem_line(error: Exception, memory: str = SMALLER) -> str:
    """One line for any error. `memory` is what to do if there is not enough."""
    if isinstance(error, UserError | Diverged | OSError):
        line = str(error)
    elif isinstance(error, Stopped):
        line = "it was stopped"
    elif is_short(error):
        line = f"out of memory; {memory}"
    else:
        line = f"{type(error).__name__}: {error}"
    return " ".join(line.split())
