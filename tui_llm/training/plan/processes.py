"""How many processes train a run, and which rows of a batch are whose. No torch here."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.training.run.settings import TrainingSettings


def check(settings: TrainingSettings, nproc: int, *, shard: bool = False) -> None:
    """Raises `UserError` where `nproc` processes can't train a run with these settings."""
    if nproc < 1:
        raise UserError(f"nproc is {nproc}; give the number of processes, 1 or more")
    rows = settings.batch_size * settings.accumulation
    if rows % nproc:
        part = nproc // math.gcd(settings.accumulation, nproc)
        raise UserError(
            f"a step's {rows} rows (batch size {settings.batch_size} × accumulation {settings.accumulation}) can't be shared "
            f"equally by {nproc} processes; give a batch size of {math.ceil(settings.batch_size / part) * part}, say"
        )
    if shard and settings.optimiser == "muon":
        raise UserError("muon needs whole matrices, and shard cuts them up; use adamw, or leave shard out")


def share(settings: TrainingSettings, rank: int, world: int) -> tuple[range, slice]:
    """Which of a step's `accumulation` batches are the process `rank`'s, and which rows of each of those.

    Every row of the step is one process's, and all have equally many: the mean of their means is the mean over the
    whole. Batches are dealt first, and rows only where there are too few of them, so that a processor's matrices stay
    as large as the settings ask for.
    """
    dealt = math.gcd(settings.accumulation, world)
    return range(rank % dealt, settings.accumulation, dealt), slice(rank // dealt, None, world // dealt)


def command(run: Path, nproc: int) -> list[str]:
    """What starts the worker of the run at `run`: itself, or torchrun, which starts `nproc` of them."""
    worker = ["-m", "tui_llm.training.worker", str(run)]
    if nproc == 1:
        return [sys.executable, *worker]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(nproc), *worker]


def threads(nproc: int) -> dict[str, str]:
    """The processor's cores shared out (torchrun would give each process one thread)."""
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // nproc))} if nproc > 1 else {}
