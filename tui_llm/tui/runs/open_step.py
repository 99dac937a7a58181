"""Open the screen of a run's step, and then, if that was chosen there, the form for a branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.app import App

from tui_llm.common.errors import UserError
from tui_llm.training.run import branch
from tui_llm.training.run.run import Run
from tui_llm.tui.kit.actions import FileActions

Branched = Callable[[Run, Run], object]  # with a parent and its new branch


def open_step(app: App[Any], files: FileActions, run: Run, step: int | None, branched: Branched) -> None:
    """Opens step `step` of `run`, or its newest one, also if `step` is a later one (of a longer run that is drawn with it). A
    step before a branch's own is its parent's."""
    from tui_llm.tui.runs.step import ReplayScreen

    last = run.last_metric()
    if step is None and last is None:
        files.notify(f"{run.name} has no steps yet", "warning")
        return
    step = min(step or last.step, last.step) if last is not None else step or 1
    try:
        run = branch.with_step(run, step)
    except UserError as error:
        files.notify(str(error), "warning")
        return

    def left(chosen: tuple[Run, int] | None) -> None:
        if chosen is not None:
            open_branch(app, files, *chosen, branched)

    app.push_screen(ReplayScreen(run, step), left)


def open_branch(app: App[Any], files: FileActions, parent: Run, step: int, branched: Branched) -> None:
    """Opens the form for a branch of `parent` after `step` steps."""
    from tui_llm.tui.runs.branch import BranchScreen

    try:
        config = parent.config()
    except UserError as error:
        files.notify(str(error), "error")
        return

    def made(run: Run | None, problem: str = "") -> None:
        if problem:
            files.notify(problem, "error")
        if run is not None:
            branched(parent, run)

    app.push_screen(BranchScreen(parent, step, config, made), made)
