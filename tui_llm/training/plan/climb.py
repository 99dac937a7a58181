"""Takes the rungs of a ladder one after another, in this process or in one of its own. Does not import torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_regular
from tui_llm.training.plan import ladder as ladders
from tui_llm.training.plan import launch, processes
from tui_llm.training.plan.ladder import Ladder
from tui_llm.training.run.run import Run

STOPPED = "stopped"
MOST_LOG = 1 << 32  # bytes


def climb(
    ladder: Ladder,
    begin: Callable[[int, Run], object],
    follow: Callable[[Run], int],
    measure: Callable[[int], object] = lambda _: None,
) -> int:
    """Takes each rung that is not finished: makes its run, or resumes it unless a worker has it, calls `begin`, and waits with `follow`, which returns
    `training.plan.follow.follow`'s status. `measure` is called before a rung is timed, which takes some seconds.

    Ends early if a run was stopped, or failed before its first step: those after it would too. Another rung that failed is left, and
    the next one is taken. Returns 0, or 1 if a rung failed, or 130 where `follow` was interrupted. Raises `UserError`.
    """
    failed = False
    with ladders.held(ladder.name):
        for at in ladders.left(ladder):
            if ladder.unit == "minutes" and not ladder.run(at).exists():
                measure(at)
            run = ladders.prepare(ladder, at)
            if not run.taken():
                launch.resume(run)
            begin(at, run)
            status = follow(run)
            if status == 130:
                return status
            now = run.status()
            if now.state == STOPPED:
                return 0
            failed = failed or now.state != "finished"
            if now.state in ("failed", "died") and not now.step:
                break
    return int(failed)


def log_path(name: str) -> Path:
    """What a ladder in the background prints."""
    return ladders.path_of(name).with_suffix(".log")


_children: list[subprocess.Popen[bytes]] = []
"""Ladders that this process started, kept only so that they are reaped."""


def detach(ladder: Ladder) -> None:
    """Takes the rungs in a process of its own, which outlives the terminal, and returns at once. Raises `UserError`."""
    ladders.keep(ladder)
    if ladders.climbed(ladder.name):
        raise UserError(f"ladder {ladder.name} is climbed already; watch it")
    try:
        with storage.open_file(log_path(ladder.name), "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tui_llm", "ladder", "--name", ladder.name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=processes.child_environment(),
                start_new_session=True,
            )
    except OSError as error:
        raise UserError(f"can't start the ladder {ladder.name}: {error.strerror or error}") from error
    _children.append(process)


def reap() -> None:
    """Reaps ladders of this process that have ended."""
    for process in list(_children):
        if process.poll() is not None:
            _children.remove(process)


def stop(ladder: Ladder) -> bool:
    """Asks the worker of the rung that is trained to save and end, which ends the ladder. Returns whether there was one."""
    for at in range(len(ladder.rungs)):
        run = ladder.run(at)
        if run.exists() and run.taken():
            with suppress(UserError):  # it has just ended
                launch.stop(run)
            return True
    return False


def trouble(name: str) -> str:
    """The last line of what a ladder in the background printed, if that is an error; else empty."""
    try:
        with open_regular(log_path(name), MOST_LOG) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    last = lines[-1] if lines else ""
    return last.removeprefix("tui-llm: ") if last.startswith("tui-llm: ") else ""
