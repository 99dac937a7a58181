"""What a worker measures beside its losses: the machine's peak, memory, and how well a shipped model does on the same
held-out rows. What it finds goes into the run's status and metrics."""

from __future__ import annotations

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
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.tokenizer import BPETokenizer, load_folder
from tui_llm.training.plan import cost
from tui_llm.training.run.run import Run, number
from tui_llm.training.worker.loop import Step, Trainer

PEAK_AFTER = 10.0  # seconds of training before the machine's peak is measured: a shorter run can do without
MEMORY_EVERY = 20  # steps
SHIPPED_WITHIN = 20.0  # seconds that a shipped model may take for the held-out rows


class Gauges:
    """Those of one worker. Its `facts` are complete once the peak is known, which is measured at most once a machine."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.device = trainer, trainer.device
        self.precision = "bf16" if trainer.bfloat16 else "fp32"
        self.facts: dict[str, Any] = {
            "flops_per_token": cost.flops_per_token(trainer.model.config, trainer.settings.block_size),
            "precision": self.precision,
        }
        self._began = time.monotonic()
        self._settled = self._take(machine.known(self.device))

    def _take(self, found: machine.Machine | None) -> bool:
        peak = found.peak(self.precision) if found else None
        if peak is not None:
            self.facts["peak_flops"] = peak
        return found is not None and found.quiet

    def line(self, record: Step) -> dict[str, float | None]:
        """What is logged with a step: `memory_bytes` and `gpu_use`, at evaluations and now and then."""
        if record.val_loss is None and record.step % MEMORY_EVERY:
            return {}
        return {"memory_bytes": memory_bytes(self.device), "gpu_use": gpu_use(self.device)}

    def due(self) -> bool:
        """Whether it is time to measure the machine: between two steps, so that nothing of ours disturbs it."""
        return not self._settled and time.monotonic() - self._began >= PEAK_AFTER

    def measure(self) -> None:
        """Measures it, in some seconds; where that fails there is no MFU."""
        self._settled = True
        self._take(machine.measure_apart(self.device))


def memory_bytes(device: torch.device) -> int | None:
    """What this worker holds: on a GPU the most that it ever held there, else main memory, now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return memory.resident_bytes()


def gpu_use(device: torch.device) -> float | None:
    """The share of the last moments in which the GPU was busy; None where that can't be told (pynvml isn't installed)."""
    if device.type != "cuda":
        return None
    with suppress(ImportError, RuntimeError, AssertionError):
        return torch.cuda.utilization(device) / 100
    return None


def available(device: torch.device) -> int | None:
    """Bytes that this worker could hold on its device, what it holds already included."""
    if device.type != "cuda":
        return memory.memory_limit()
    try:
        free, _total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    except RuntimeError:
        return None


def shipped_loss(
    run: Run, trainer: Trainer, tokenizer: BPETokenizer, progress: Callable[[str], None]
) -> dict[str, Any]:
    """`shipped_model` and `shipped_loss`, in nats per token on the rows that the run's validation loss is measured on;
    empty where no shipped model has the run's vocabulary and room for its rows, or it takes too long. Measured once a
    run, and kept in its directory. `progress` may raise to stop it.
    """
    rows = len(trainer.validation[0])
    kept = run.path / "shipped.json"
    with suppress(UserError, KeyError, TypeError, ValueError):
        said = read_json(kept)
        if said["rows"] == rows and (loss := number(said["loss"])) is not None:
            return {"shipped_model": str(said["model"]), "shipped_loss": loss}
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


def _fits(folder: Path, trainer: Trainer, tokenizer: BPETokenizer) -> bool:
    config = model_config.read_config(folder)
    if config.context < trainer.settings.block_size or config.vocabulary < tokenizer.size:
        return False
    if size_of_vocabulary(folder) != tokenizer.size:  # told at once; building it takes a while
        return False
    theirs = load_folder(folder)
    return (theirs.size, theirs.merges) == (tokenizer.size, tokenizer.merges) and all(
        theirs.token_bytes(id) == tokenizer.token_bytes(id) for id in range(tokenizer.size)
    )


@torch.no_grad()
def _loss(model: GPT, trainer: Trainer, progress: Callable[[str], None], name: str) -> float | None:
    """As `Trainer.validate`, for another model."""
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
