"""Start the worker of a run that was just created. Does not import torch."""

from __future__ import annotations

from tui_llm.common.errors import UserError
from tui_llm.training.plan import launch
from tui_llm.training.run.run import Run


def start_or_delete(run: Run) -> None:
    """Starts the worker. If that fails, deletes the run, so that its name can be used again, and raises `UserError` or
    OSError."""
    try:
        launch.start(run)
    except (UserError, OSError):
        if not run.checkpoints() and not run.alive():
            run.delete()
        raise
