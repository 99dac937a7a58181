"""Measurements besides the training losses: peak FLOP/s, memory, and a shipped model's loss on the held-out rows.

The results go into the run's status and metrics.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tui_llm.common import memory, paths
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.common.run_load import RunLoad
from tui_llm.llm.hub.lookup import size_of_vocabulary
from tui_llm.llm.model import checkpoint, machine, model_config
from tui_llm.llm.model.device_gauges import with_allocator
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.tokenizer import BPETokenizer, Tokenizer
from tui_llm.llm.tokens.vocabulary_folder import load_folder
from tui_llm.training.run import gauges
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.run import Run
from tui_llm.training.run.status import number
from tui_llm.training.worker import machine_sampler
from tui_llm.training.worker.loop import Trainer

PEAK_AFTER = 10.0  # seconds of training before the machine's peak is measured, so that short runs are not delayed
PEAK_TAKES = 8.0  # seconds, about
BUSY = 1.1  # contention of the steps from which a measurement would be disturbed too, and is put off
AGAIN_AFTER = 60.0  # seconds until the next try, which an evaluation makes
LONGER = 3.0  # times as long after each further measurement that was disturbed
MOST_WRONG = 3  # measured peaks that steps exceeded, after which this worker measures no more
MEMORY_EVERY = 20  # steps
SHIPPED_WITHIN = 20.0  # time limit in seconds of a shipped model's loss on the held-out rows


class Gauges:
    """The measurements of one worker.

    `wanted` is the device that the run asks for. `sampler` is a context manager: inside it, the machine is read. `facts` has
    `peak_flops` once the machine's peak is known. That is measured once for each machine, if no other process disturbs it and no
    step is faster; else again at later evaluations.
    """

    def __init__(self, trainer: Trainer, wanted: str) -> None:
        self.trainer, self.device = trainer, trainer.device
        self.precision = "bf16" if trainer.bfloat16 else "fp32"
        self.facts: dict[str, Any] = {
            "flops_per_token": trainer.flops_per_token,
            "precision": self.precision,
        }
        self.sampler = machine_sampler.sampler(self.device, wanted)
        self._wrong, self._measured = 0, 0
        self._due: float | None = time.monotonic() + PEAK_AFTER
        self._put_off, self._load = False, RunLoad()
        self._take(machine.known(self.device))

    def _take(self, found: machine.Machine | None) -> None:
        if found is not None and (peak := found.peak(self.precision)) is not None:
            self.facts["peak_flops"] = peak
            self._due = None

    def complete(self, metric: Metric) -> Metric:
        """Returns `metric` with the time; at evaluations and every `MEMORY_EVERY` steps also with the memory and the
        newest gauges of the machine."""
        now = round(time.time(), 3)
        if metric.val_loss is None and metric.step % MEMORY_EVERY:
            return dataclasses.replace(metric, time=now)
        found = self.sampler.newest
        machine = None if found is None else with_allocator(found, self.device)
        use = machine.gpus[0].use if machine is not None and machine.gpus else None
        return dataclasses.replace(
            metric, time=now, memory_bytes=memory_bytes(self.device), gpu_use=use, machine=machine
        )

    def due(self, metric: Metric) -> bool:
        """Whether to measure the machine after the step of `metric`: the first time after any step, then at evaluations; not while
        the steps wait for cores, since a measurement would too, and takes a minute then.

        Call it between two steps, so that training does not disturb the measurement.
        """
        again = self._measured or self._wrong or self._put_off
        if self._due is None or time.monotonic() < self._due or (again and metric.val_loss is None):
            return False
        contention, self._load = self._load.contention(), RunLoad()
        self._put_off = self.device.type == "cpu" and contention is not None and contention > BUSY
        if self._put_off:
            self._later()
        return not self._put_off

    def measure(self) -> str:
        """Measures the machine's peak, which takes some seconds in which this process waits. Returns why there is no MFU after
        that, or an empty text."""
        self._measured += 1
        self._due = None
        found = machine.measure_in_subprocess(self.device)
        self._take(found)
        if found is None:
            return "the machine's peak FLOP/s could not be measured, so there is no MFU"
        if self.precision not in found.disturbed:
            return ""
        self._later()
        return "other processes used the cores while the machine's peak FLOP/s was measured, so there is no MFU; it is measured again at a later evaluation"

    def _later(self) -> None:
        self._due = time.monotonic() + AGAIN_AFTER * LONGER ** max(0, self._measured - 1)

    def discard_peak(self, metric: Metric) -> str:
        """Discards the peak if the step of `metric` was faster than it. Returns what happened, or an empty text."""
        if not gauges.above_peak(self.facts, metric.tokens_per_second, metric.flops_per_token):
            return ""
        del self.facts["peak_flops"]
        machine.discard(self.device, self.precision)
        self._wrong += 1
        what = f"step {metric.step:,} was faster than this machine's measured peak FLOP/s, so that measurement was wrong and there is no MFU"
        if self._wrong >= MOST_WRONG:
            return f"{what}; it is not measured again"
        self._later()
        return f"{what}; it is measured again at a later evaluation"


def environment(device: torch.device) -> dict[str, Any]:
    """What the numbers of a run depend on besides its settings: torch, the hardware, the number of CPU threads."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "hardware": hardware, "threads": torch.get_num_threads()}


def memory_bytes(device: torch.device) -> int | None:
    """Returns the memory of this worker in bytes: on CUDA the peak of allocated memory, else what it holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return memory.resident_bytes()


def available(device: torch.device) -> int | None:
    """Returns the bytes that this worker could use on its device, including what it already holds; None if unknown."""
    if device.type != "cuda":
        return memory.memory_limit()
    try:
        free, _total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    except RuntimeError:
        return None


def shipped_loss(
    run: Run, trainer: Trainer, tokenizer: Tokenizer, progress: Callable[[str], None], within: float = SHIPPED_WITHIN
) -> dict[str, Any]:
    """Returns `shipped_model` and `shipped_loss`: a shipped model's loss in nats per token on the run's held-out rows.

    Returns an empty dict if no shipped model has the run's vocabulary and a context for its rows, or if it takes longer
    than `within` seconds. Measured once for each run and saved in its directory. `progress` may raise to cancel.
    """
    rows = len(trainer.validation[0])
    kept = run.path / "shipped.json"
    with suppress(UserError, KeyError, TypeError, ValueError):
        value = read_json(kept)
        if value["rows"] == rows and (loss := number(value["loss"])) is not None:
            return {"shipped_model": str(value["model"]), "shipped_loss": loss}
    for folder in sorted(paths.shipped_models_dir().glob("*/")):
        with suppress(UserError):
            if not _fits(folder, trainer, tokenizer):
                continue
            progress(f"measuring {folder.name}'s loss on the held-out rows")
            loss = _loss(checkpoint.load(folder).to(trainer.device), trainer, progress, folder.name, within)
            if loss is not None:
                write_json(kept, {"model": folder.name, "loss": loss, "rows": rows})
                return {"shipped_model": folder.name, "shipped_loss": loss}
    return {}


def _fits(folder: Path, trainer: Trainer, tokenizer: Tokenizer) -> bool:
    config = model_config.read_config(folder)
    if config.context < trainer.settings.block_size or config.vocabulary < tokenizer.size:
        return False
    if (
        not isinstance(tokenizer, BPETokenizer) or size_of_vocabulary(folder) != tokenizer.size
    ):  # a cheap check first: loading the vocabulary takes longer
        return False
    theirs = load_folder(folder)
    ours = tokenizer.size, tokenizer.merges, tokenizer.fingerprint
    return (theirs.size, theirs.merges, theirs.fingerprint) == ours and all(
        theirs.token_bytes(id) == tokenizer.token_bytes(id) for id in range(tokenizer.size)
    )


@torch.no_grad()
def _loss(model: GPT, trainer: Trainer, progress: Callable[[str], None], name: str, within: float) -> float | None:
    """Like `Trainer.validate`, for another model; None if it takes longer than `within` seconds."""
    model.eval()
    began, total, (x, y) = time.monotonic(), 0.0, trainer.validation
    for i in range(0, len(x), trainer.settings.batch_size):
        if time.monotonic() - began > within:
            return None
        progress(f"measuring {name}'s loss on the held-out rows: {i} of {len(x)}")
        rows = slice(i, i + trainer.settings.batch_size)
        with trainer.autocast():
            loss = model.loss(x[rows].to(trainer.device), y[rows].to(trainer.device), trainer.products)
        total += float(loss) * len(x[rows])
    return total / len(x)
