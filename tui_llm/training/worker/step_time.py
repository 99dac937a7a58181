"""The subprocess of plan/step_time.py: `python -m tui_llm.training.worker.step_time`.

It reads a JSON request from stdin and writes JSON lines to stdout: one when it is ready, then one for each measured
step (rows, tokens, seconds, device), or one that names the problem.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tui_llm.common.errors import UserError
from tui_llm.common.numbers import memory_size
from tui_llm.llm.data.corpus import Corpus
from tui_llm.llm.model import device
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import cost
from tui_llm.training.run.settings import TrainingSettings, from_fields
from tui_llm.training.worker.loop import Trainer
from tui_llm.training.worker.problem_line import problem_line

STEPS = 8  # largest number of measured steps
SHARE = 0.4  # of the time limit for the measured steps; the rest is for starting up
STEP_SHARE = 0.1  # of the time limit for one step; a longer step is measured with fewer rows


def measure(
    settings: TrainingSettings, shape: GPTConfig, place: torch.device, seconds: float
) -> Iterator[dict[str, Any]]:
    """Measures steps of the run, or of the largest part of its batch that fits the time limit.

    First it times a single row, then one batch, to choose the size. Random tokens cost as much as real ones. The first
    step of each size is a warm-up and is not counted. For a large model on a slow device, only single rows are
    measured.
    """
    device.use_threads(settings.threads)
    torch.manual_seed(settings.seed)
    model = GPT(dataclasses.replace(shape, dropout=settings.dropout)).to(place)

    def trainer(rows: int, batches: int) -> Trainer:
        s = dataclasses.replace(settings, batch_size=rows, grad_accumulation_steps=batches, eval_batches=1, steps=10**9)
        ids = np.random.default_rng(0).integers(0, shape.vocabulary, max(4096, 4 * rows * s.block_size + 2))
        tokens = ids.astype(np.uint32)
        return Trainer(model, Corpus(tokens, tokens, 1.0, 0.0, ""), s, place)

    def report(steps: Iterator[float], rows: int, batches: int) -> Iterator[dict[str, Any]]:
        began, tokens = time.perf_counter(), rows * batches * settings.block_size
        for number, took in enumerate(steps, 1):
            yield {"rows": rows, "tokens": tokens, "seconds": took, "device": str(place)}
            if number == STEPS or time.perf_counter() - began > seconds * SHARE:
                return

    most = seconds * STEP_SHARE
    single = _timed(trainer(1, 1))
    next(single)
    one = next(single)
    if one > most:  # no time for more than one row: count the trial step too
        yield from report(itertools.chain([one], single), 1, 1)
        return
    one = min(one, next(single), next(single))
    rows = min(settings.batch_size, max(1, int(most / one)))
    batch = min(_seconds(trainer(rows, 1), 3)[1:]) if rows > 1 else one
    batches = min(settings.grad_accumulation_steps, max(1, int(most / batch)))
    steps = _timed(trainer(rows, batches))
    next(steps)
    yield from report(steps, rows, batches)


def _timed(trainer: Trainer) -> Iterator[float]:
    """Yields the seconds of each training step, without evaluations."""
    number = 0
    while True:
        number += 1
        began = time.perf_counter()
        trainer._update(number, 0.0)
        yield time.perf_counter() - began


def _seconds(trainer: Trainer, steps: int) -> list[float]:
    return [took for took, _ in zip(_timed(trainer), range(steps), strict=False)]


def check_memory(settings: TrainingSettings, shape: GPTConfig, place: torch.device) -> None:
    """Raises `UserError` if a batch of one row can't fit into free memory.

    Otherwise the system would end some process when memory runs out.
    """
    if place.type != "cpu":
        return
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return
    needed = cost.cost(dataclasses.replace(settings, batch_size=1), shape).memory_bytes
    if needed > free:
        raise UserError(f"it needs at least {memory_size(needed)} of memory, and {memory_size(free)} are free here")


def main() -> int:
    """Reads the request from stdin and prints the results. Returns the exit status."""
    try:
        asked = json.load(sys.stdin)
        print(json.dumps({"ready": True}), flush=True)
        if hasattr(signal, "alarm"):
            signal.alarm(int(2 * asked["seconds"]) + 1)  # exit if the parent has ended
        settings, shape = from_fields(asked["settings"]), GPTConfig(**asked["shape"])
        place = device.choose(asked["device"])
        torch.set_flush_denormal(True)
        check_memory(settings, shape, place)
        for found in measure(settings, shape, place, asked["seconds"]):
            print(json.dumps(found), flush=True)
        return 0
    except BrokenPipeError:
        return 1
    except Exception as error:  # the parent reports it
        print(json.dumps({"problem": problem_line(error)}), flush=True)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
