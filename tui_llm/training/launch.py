"""Start, stop, pause and resume a run's worker, and find it again. No torch here.

The worker is a process of its own, in a session of its own: it lives on when the terminal, or this program, dies.
Nothing is kept in memory about it. Everything is found in the run directory, by any process, at any time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from filelock import Timeout

from tui_llm import paths
from tui_llm.errors import UserError
from tui_llm.training.presets import TrainingSettings
from tui_llm.training.run import Run, RunConfig, check_name

ALLOCATOR = {
    # Big tensors come and go every step: huge pages, and no handing back to the kernel in between.
    "THP_MEM_ALLOC_ENABLE": "1",
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
}


def create(name: str, corpus: list[str], settings: TrainingSettings, *, preset: str, device: str = "auto") -> Run:
    """Makes the directory of a new run. Raises `UserError` where the name is taken or the corpus isn't there."""
    run = Run(paths.runs_dir() / check_name(name))
    if run.exists():
        raise UserError(f"there is a run {name!r} already; resume it (--resume) or choose another name")
    if not corpus:
        raise UserError("name a text file or a folder to train on")
    places = []
    for place in corpus:
        path = Path(place).expanduser()
        if not path.exists():
            raise UserError(f"there is no file or folder {place}; give the path of a text to train on")
        places.append(str(path.resolve()))
    run.path.mkdir(parents=True, exist_ok=True)
    run.write_config(RunConfig(tuple(places), preset, device, settings))
    return run


def start(run: Run) -> None:
    """Starts (or resumes, where there are checkpoints) the worker of `run`, detached. Returns at once.

    Raises `UserError` where a worker is at it already.
    """
    config = run.config()
    try:
        with run.lock():
            run.write_control(paused=False, stop=False)
            run.write_status("starting", "starting the worker")
    except Timeout:
        raise UserError(f"run {run.name} is being trained already; watch it, or stop it first") from None
    except OSError as error:
        raise UserError(f"can't write in {run.path}: {error.strerror or error}") from error
    niceness = os.environ.get("TUI_LLM_NICE")
    command = [sys.executable, "-m", "tui_llm.training.worker", str(run.path)]
    if niceness and niceness.isdigit():
        command = ["nice", "-n", niceness, *command]
    environment = {**ALLOCATOR, **os.environ}
    if config.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with run.log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=run.path,
            start_new_session=True,
            close_fds=True,
        )
    _children.append(process)


_children: list[subprocess.Popen[bytes]] = []
"""Workers that this process started, kept only so that they are reaped when they end."""


def reap() -> None:
    """Collects ended workers of this process, so that none stays as a zombie."""
    _children[:] = [process for process in _children if process.poll() is None]


def wait_until_held(run: Run, timeout: float = 30.0) -> bool:
    """Waits until the run's worker holds its lock or has ended; says whether it is held."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if run.alive():
            return True
        reap()
        if run.status().state in ("failed", "finished", "stopped"):
            return False
        time.sleep(0.05)
    return False


def wait_until_gone(run: Run, timeout: float = 60.0) -> bool:
    """Waits until no worker holds the run; says whether that came about."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        reap()
        if not run.alive():
            return True
        time.sleep(0.05)
    return False


def pause(run: Run) -> None:
    run.write_control(paused=True)


def unpause(run: Run) -> None:
    run.write_control(paused=False)


def stop(run: Run) -> None:
    """Asks the worker to save and leave (SIGTERM). Returns at once; raises `UserError` where none is at work."""
    if not run.alive():
        raise UserError(f"run {run.name} is not being trained")
    pid = _worker_pid(run)
    if pid is None:  # between taking the lock and saying who it is: ask through the file
        run.write_control(stop=True)
        return
    os.kill(pid, signal.SIGTERM)


def _worker_pid(run: Run) -> int | None:
    """The pid that the holder of the lock wrote down. Believed only while the lock is held."""
    try:
        return int((run.path / "pid").read_text())
    except (OSError, ValueError):
        return None
