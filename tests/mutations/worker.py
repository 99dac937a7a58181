"""A mutated run, resumed by the worker's own function, in this process: a case's forked child."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_STEPS = 12  # a changed config.json may ask for a thousand million


def resumed(run: Path, newest: int) -> Callable[[], int]:
    """Returns a call that trains `run` from the checkpoint of step `newest`, of at most `MOST_STEPS` steps, and prints the losses
    of its steps and the digest of the weights after them. A failure is printed as the command line does, from the run's status or
    log."""

    def call() -> int:
        from tui_llm.common.display import visible
        from tui_llm.training.worker import process

        for folder in run.glob("checkpoint-*"):
            if folder.is_dir() and folder.name == "checkpoint-10" and newest < 10:
                shutil.rmtree(folder)  # as if the worker had been killed before it
        steps = _bound()
        code, log = _with_log(lambda: process.main([str(run)]))
        if "Traceback" in log:
            sys.stderr.write(log)
            return 99
        if code in (1, 2):
            print(f"tui-llm: {visible(_reason(run, log))}", file=sys.stderr)
            return 2
        if code == 0:
            print(json.dumps(_answer(run, steps), allow_nan=False))
        return code

    return call


def _bound() -> list[int]:
    """Ends the training after `MOST_STEPS` steps. Returns a list that gets the steps before each of which a request is served.
    The machine's gauges, whose thread uses some CPU time all the time, are not read: a hang would not be noticed."""
    from tui_llm.training.worker.job import Job
    from tui_llm.training.worker.requests import Requests

    steps: list[int] = []
    serve = Requests.serve

    def bounded(self: Requests, step: int) -> bool:
        steps.append(step)
        return len(steps) <= MOST_STEPS and serve(self, step)

    Requests.serve = bounded  # type: ignore[method-assign]
    Job._sampling = lambda self: contextlib.nullcontext()  # type: ignore[method-assign]
    return steps


def _with_log(work: Callable[[], int]) -> tuple[int, str]:
    """Returns the result of `work`, and what it wrote to file descriptor 1: the run's log."""
    with tempfile.TemporaryFile() as file:
        before = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            code = work()
        finally:
            os.dup2(before, 1)
            os.close(before)
        file.seek(0)
        return code, file.read().decode("utf-8", "replace")


def _reason(run: Path, log: str) -> str:
    """Why the run failed: its status says so, or, if that can't be written, the log's last line."""
    try:
        status = json.loads((run / "status.json").read_text())
        if status["state"] == "failed":
            return str(status["message"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return log.rstrip().rpartition("\n")[2].partition("failed ")[2]


def _answer(run: Path, steps: list[int]) -> dict[str, Any]:
    """The losses of the steps that were trained, and the digest of the newest weights."""
    losses = {}
    for line in (run / "metrics.jsonl").read_bytes().splitlines():
        try:
            metric = json.loads(line)
            if steps and steps[0] < metric["step"] <= steps[-1]:
                losses[str(metric["step"])] = metric["loss"]
        except (ValueError, KeyError, TypeError):  # an earlier line, which was mutated
            continue
    weights = run / f"checkpoint-{steps[-1]}" / "model.safetensors"
    state = json.loads((run / "status.json").read_text())["state"]
    return {"state": state, "step": steps[-1], "losses": losses, "weights": hashlib.sha256(weights.read_bytes()).hexdigest()}  # fmt: skip


def as_before(intact: Path) -> Callable[[Any], str]:
    """Returns a check that a resumed run has the losses and the weights of the uninterrupted run `intact`."""

    def check(answer: Any) -> str:
        lines = [json.loads(line) for line in (intact / "metrics.jsonl").read_text().splitlines()]
        losses = {str(line["step"]): line["loss"] for line in lines}
        weights = hashlib.sha256((intact / "checkpoint-10" / "model.safetensors").read_bytes()).hexdigest()
        if answer["state"] != "finished" or answer["step"] != 10 or answer["weights"] != weights:
            return f"state {answer['state']}, step {answer['step']}, other weights {answer['weights'] != weights}"
        wrong = {step: loss for step, loss in answer["losses"].items() if losses.get(step) != loss}
        return f"losses {wrong} of the uninterrupted run's {losses}" if wrong else ""

    return check
