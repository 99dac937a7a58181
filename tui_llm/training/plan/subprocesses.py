"""Starts the subprocesses that answer a question about a run, a module of training/worker each. Does not import torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.training.plan import processes


def start(
    module: str, purpose: str, device: str = "auto", variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts `python -m tui_llm.training.worker.MODULE` with the environment of a run's worker and `variables`. It reads JSON
    from its stdin and prints JSON lines (`processes.json_lines`). Raises `UserError`, which names the `purpose`, if it can't be started."""
    environment = {**processes.ALLOCATOR, **processes.child_environment(), **(variables or {})}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    try:
        return subprocess.Popen(
            [sys.executable, "-m", f"tui_llm.training.worker.{module}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"can't start a process to {purpose}: {error.strerror or error}") from error


def ask(process: subprocess.Popen[bytes], request: Mapping[str, Any]) -> None:
    """Writes the only request, and closes the process's stdin. A process that has ended already is not an error here: its
    missing answer is."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.write(json.dumps(request).encode())
        process.stdin.close()
