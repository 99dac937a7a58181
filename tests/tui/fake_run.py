"""Hand-written run directories, and processes that hold their locks: training as the screen sees it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tui_llm.common import paths
from tui_llm.training.run.config import RunConfig
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import PRESETS, from_fields

HOLD = """
import os, sys
from pathlib import Path
from filelock import FileLock
run = Path(sys.argv[1])
with FileLock(run / "lock"):
    (run / "pid").write_text(str(os.getpid()))
    print("held", flush=True)
    sys.stdin.read()
"""


def metric_line(step: int, **more: Any) -> bytes:
    values = {"step": step, "loss": 1 + 5 * math.exp(-step / 100), "lr": 1e-3, "grad_norm": 0.5,
              "tokens_per_second": 1000.0, "time": 1e9 + step * 0.5, **more}  # fmt: skip
    return json.dumps({k: v for k, v in values.items() if v is not None}).encode() + b"\n"


def make(
    name: str,
    *,
    steps: int = 100,
    done: int = 0,
    state: str = "stopped",
    corpus: str = "/texts/tales.txt",
    message: str = "",
    **status: Any,
) -> Run:
    """Creates a `toy` run that has made `done` of `steps` steps, with a validation loss at every tenth."""
    run = Run(paths.runs_dir() / name)
    run.path.mkdir(parents=True)
    run.write_config(RunConfig((corpus,), "toy", "cpu", from_fields({"steps": steps}, PRESETS["toy"])))
    add(run, 1, done)
    run.write_status(state, message, **{"vocabulary": 257, "parameters": 123_456, "device": "cpu", **status})
    return run


def add(run: Run, first: int, last: int, **more: Any) -> None:
    """Appends the metrics of steps first…last, with a validation loss at every tenth."""
    with run.metrics_path.open("ab") as file:
        for step in range(first, last + 1):
            file.write(metric_line(step, **{"val_loss": 3.0 if step % 10 == 0 else None, **more}))


def sample(run: Run, step: int, text: str, prompt: str = "Once") -> None:
    with run.samples_path.open("ab") as file:
        file.write(json.dumps({"step": step, "prompt": prompt, "text": text}).encode() + b"\n")


def checkpoint(run: Run, step: int) -> Path:
    """Creates a folder that counts as a complete checkpoint, although it contains no model."""
    folder = run.path / f"checkpoint-{step}"
    folder.mkdir()
    for name in ("config.json", "training.json"):
        (folder / name).write_text("{}")
    return folder


@contextlib.contextmanager
def alive(run: Run) -> Iterator[subprocess.Popen[bytes]]:
    """Inside the block, another process holds the run's lock; killing it has the effect of SIGKILL on a worker."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def made_at(run: Run, seconds: float) -> None:
    """Sets the time of the run's last write to `seconds` before now."""
    when = time.time() - seconds
    for path in run.path.iterdir():
        os.utime(path, (when, when))
