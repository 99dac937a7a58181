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
from tui_llm.llm.hub.lookup import size_of_vocabulary
from tui_llm.llm.model import checkpoint, machine, model_config
from tui_llm.llm.model.device_gauges import with_allocator
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.tokenizer import BPETokenizer, Tokenizer
from tui_llm.llm.tokens.vocabulary_folder import load_folder
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.run import Run
from tui_llm.training.run.status import number
from tui_llm.training.worker import machine_sampler
from tui_llm.training.worker.loop import Trainer

PEAK_AFTER = 10.0  # seconds of training before the machine's peak is measured, so that short runs are not delayed
MEMORY_EVERY = 20  # steps
SHIPPED_WITHIN = 20.0  # time limit in seconds of a shipped model's loss on the held-out rows


class Gauges:
    """The measurements of one worker.

    `wanted` is the device that the run asks for. `sampler` is a context manager: inside it, the machine is read. `facts` is
    complete once the machine's peak is known, which is measured at most once for each machine.
    """

    def __init__(self, trainer: Trainer, wanted: str) -> None:
        self.trainer, self.device = trainer, trainer.device
        self.precision = "bf16" if trainer.bfloat16 else "fp32"
        self.facts: dict[str, Any] = {
            "flops_per_token": trainer.flops_per_token,
            "precision": self.precision,
        }
        self.sampler = machine_sampler.sampler(self.device, wanted)
        self._began = time.monotonic()
        self._settled = self._take(machine.known(self.device))

    def _take(self, found: machine.Machine | None) -> bool:
        peak = found.peak(self.precision) if found else None
        if peak is not None:
            self.facts["peak_flops"] = peak
        return found is not None and found.quiet

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

    def due(self) -> bool:
        """Whether to measure the machine now.

        Call it between two steps, so that training does not disturb the measurement.
        """
        return not self._settled and time.monotonic() - self._began >= PEAK_AFTER

    def measure(self) -> None:
        """Measures the machine's peak, which takes some seconds. If that fails, there is no MFU."""
        self._settled = True
        self._take(machine.measure_in_subprocess(self.device))


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


def shipped_loss(run: Run, trainer: Trainer, tokenizer: Tokenizer, progress: Callable[[str], None]) -> dict[str, Any]:
    """Returns `shipped_model` and `shipped_loss`: a shipped model's loss in nats per token on the run's held-out rows.

    Returns an empty dict if no shipped model has the run's vocabulary and a context for its rows, or if it takes longer
    than `SHIPPED_WITHIN`. Measured once for each run and saved in its directory. `progress` may raise to cancel.
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
            loss = _loss(checkpoint.load(folder).to(trainer.device), trainer, progress, folder.name)
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
def _loss(model: GPT, trainer: Trainer, progress: Callable[[str], None], name: str) -> float | None:
    """Like `Trainer.validate`, for another model; None if it takes longer than `SHIPPED_WITHIN`."""
    model.eval()
    began, total, (x, y) = time.monotonic(), 0.0, trainer.validation
    for i in range(0, len(x), trainer.settings.batch_size):
        if time.monotonic() - began > SHIPPED_WITHIN:
            return None
        progress(f"measuring {name}'s loss on the held-out rows: {i} of {len(x)}")
        rows = slice(i, i + trainer.settings.batch_size)
        with trainer.autocast():
            loss = model.loss(x[rows].to(trainer.device), y[rows].to(trainer.device), trainer.products)
        total += float(loss) * len(x[rows])
    return total / len(x)
