"""The subprocess of plan/run_time.py: `python -m tui_llm.training.worker.run_time`.

It begins the run in a scratch directory, as the worker would: the same inputs, steps, evaluations, samples and checkpoints
with the same files; and writes as JSON lines what each takes. Where a step takes too long for that, fewer rows are
measured and the rest is estimated from them, which the result says.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tui_llm.common import run_load
from tui_llm.llm.model import checkpoint
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.run import Run
from tui_llm.training.worker import inputs, step_time
from tui_llm.training.worker.inputs import Inputs
from tui_llm.training.worker.job import Job
from tui_llm.training.worker.loop import Trainer
from tui_llm.training.worker.problem_line import problem_line
from tui_llm.training.worker.replay_state import ReadingWorker

SHARE = 0.6  # of the seconds for steps with what the run records; then evaluation and checkpoint, if none was due
STEP_SHARE = 0.1  # of the seconds for one step; a longer one is measured with fewer rows
FORWARD = 1 / 3  # of a step's time per token for an evaluation's: without the backward pass
BLOCKS = 6  # parts of the measured time, whose speeds are compared
ROW_AT_LEAST = 1 / 8  # a row of a batch takes at least this part of the time of a row alone

Say = Callable[[dict[str, Any]], object]


def measure(run: Run, seconds: float, began: float, say: Say) -> dict[str, Any]:
    """Returns the parts of the run's time, in seconds. `began` is when the process was started, by the monotonic clock,
    which this machine's processes share: the wall clock may be set meanwhile."""
    worker = ReadingWorker(run, lambda text: say({"doing": text}))
    loaded = inputs.load(worker)
    model = inputs.random_model(worker, loaded)
    step_time.check_memory(worker.settings, model.config, loaded.device)
    if loaded.start:
        model.load_state_dict(checkpoint.load(loaded.start).state_dict())
    before = time.monotonic()
    if loaded.corpus is not None and _too_slow(worker, loaded, model, seconds):
        say({"ready": True})
        return _part(worker, loaded, model, seconds) | {"start": before - began}
    tried = time.monotonic() - before
    job = Job(worker, loaded, model, 0, None)
    job.prepare("")
    start = time.monotonic() - began - tried  # what the run takes before its first step
    say({"ready": True})
    return _whole(job, seconds) | {"start": start}


def _too_slow(worker: ReadingWorker, loaded: Inputs, model: Any, seconds: float) -> bool:
    """Whether a step takes too long to measure several: from a row alone, then, if that leaves it open, from a whole step."""
    s = worker.settings
    model.used = loaded.tokenizer.size
    single = Trainer(model, loaded.corpus, dataclasses.replace(s, batch_size=1, grad_accumulation_steps=1, eval_batches=1), loaded.device)  # fmt: skip
    row = min(_step(single, number) for number in (1, 2))
    return row * s.batch_size * s.grad_accumulation_steps * ROW_AT_LEAST > STEP_SHARE * seconds


def _step(trainer: Trainer, number: int) -> float:
    began = time.perf_counter()
    trainer._update(number, 0.0)
    return time.perf_counter() - began


def _whole(job: Job, seconds: float) -> dict[str, Any]:
    """The parts of the run's time, from its first steps with all that it records."""
    s = job.settings
    plain: list[float] = []
    evaluations, saves, last = list[float](), list[float](), None
    load = run_load.RunLoad()
    began = before = time.perf_counter()
    for metric in job.steps():
        now = time.perf_counter()
        took, before, last = now - before, now, metric
        saved = metric.step % s.checkpoint_every == 0 or metric.step == s.steps
        if metric.val_loss is None and not saved:
            plain.append(took)
        if now - began > SHARE * seconds and (plain or now - began > seconds):
            break
    contention = load.contention()
    assert last is not None
    usual = sum(plain) / len(plain) if plain else (time.perf_counter() - began) / last.step
    if len(plain) > 3:
        usual = sum(plain[1:]) / len(plain[1:])  # the first one loads code
    first = time.perf_counter()
    _evaluate(job, last)
    evaluations.append(time.perf_counter() - first)
    first = time.perf_counter()
    job.saved = None
    job.save(max(1, job.step))
    saves.append(time.perf_counter() - first)
    return {
        "step": usual, "evaluation": evaluations[0], "checkpoint": saves[0], "steps_measured": len(plain) or last.step,
        "rows": s.batch_size, "step_tokens": job.trainer.step_tokens, "spread": _spread(plain[1:] or plain),
        "contention": contention, "device": str(job.trainer.device), "whole": True,
    }  # fmt: skip


def _evaluate(job: Job, last: Metric) -> None:
    job.record_evaluation(dataclasses.replace(last, val_loss=job.trainer.validate()))


def _spread(times: list[float]) -> float:
    """The relative standard deviation of the mean step time of `BLOCKS` consecutive parts."""
    size = len(times) // BLOCKS
    if size < 1:
        return 0.0
    means = [sum(times[at * size : (at + 1) * size]) / size for at in range(BLOCKS)]
    middle = sum(means) / BLOCKS
    return float((sum((one - middle) ** 2 for one in means) / (BLOCKS - 1)) ** 0.5 / middle)


def _part(worker: ReadingWorker, loaded: Inputs, model: Any, seconds: float) -> dict[str, Any]:
    """The parts of the run's time, from steps of fewer rows; evaluations by their tokens, checkpoints not at all."""
    s = worker.settings
    load = run_load.RunLoad()
    found = list(step_time.measure(s, model.config, loaded.device, seconds))
    rows = max(one["rows"] for one in found)
    rates = [one["seconds"] / one["tokens"] for one in found if one["rows"] == rows]
    token = sum(rates) / len(rates)
    tokens = s.batch_size * s.grad_accumulation_steps * s.block_size
    return {
        "step": token * tokens, "evaluation": FORWARD * token * s.eval_batches * s.batch_size * s.block_size, "checkpoint": 0.0,
        "steps_measured": len(rates), "rows": rows, "step_tokens": tokens, "spread": _spread(rates),
        "contention": load.contention(), "device": str(loaded.device), "whole": False,
    }  # fmt: skip


def main() -> int:
    """Reads the request from stdin and prints the results. Returns the exit status."""

    def say(value: dict[str, Any]) -> None:
        print(json.dumps(value, allow_nan=False), flush=True)

    try:
        asked = json.load(sys.stdin)
        torch.set_flush_denormal(True)  # as the worker
        say({"parts": measure(Run(Path(asked["run"])), asked["seconds"], asked["began"], say)})
        return 0
    except BrokenPipeError:
        return 1
    except Exception as error:  # the parent reports it
        say({"problem": problem_line(error)})
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
