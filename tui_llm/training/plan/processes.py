"""The processes that train a run, each one's share of a batch, and what a subprocess prints. Does not import torch."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tui_llm.common import openmp, storage
from tui_llm.common.errors import UserError
from tui_llm.training.run.config import RunConfig
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import LEARNS, PRETRAINING, TrainingSettings

ALLOCATOR = {
    # Large tensors are allocated and freed at every step: use huge pages, and don't return freed memory to the kernel.
    "THP_MEM_ALLOC_ENABLE": "1",
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
}

MUON_SHARDS = (2, 13)  # the first torch of which `torch.optim.Muon` on FSDP2's shards was compared with whole matrices


def check(settings: TrainingSettings, nproc: int, *, shard: bool = False) -> None:
    """Raises `UserError` if `nproc` processes can't train a run with these settings."""
    if nproc < 1:
        raise UserError(f"nproc is {nproc}; give the number of processes, 1 or more")
    if settings.objective != PRETRAINING and (nproc > 1 or shard):
        raise UserError(
            f"learning {LEARNS[settings.objective]} runs in one process; leave out {'--nproc' if nproc > 1 else '--shard'}"
        )
    if settings.minutes and (nproc > 1 or shard):
        raise UserError(
            f"a run with a time budget is trained by one process; leave out {'--nproc' if nproc > 1 else '--shard'} or --minutes"
        )
    rows = settings.batch_size * settings.grad_accumulation_steps
    if rows % nproc:
        part = nproc // math.gcd(settings.grad_accumulation_steps, nproc)
        raise UserError(
            f"a step's {rows} rows (batch size {settings.batch_size} × gradient accumulation steps {settings.grad_accumulation_steps}) can't be shared "
            f"equally by {nproc} processes; give a batch size such as {math.ceil(settings.batch_size / part) * part}"
        )
    if shard and settings.optimizer == "muon" and (found := _torch_version()) < MUON_SHARDS:
        here, least = (".".join(map(str, version)) for version in (found, MUON_SHARDS))
        raise UserError(f"muon can't step on shards in torch {here}; update to torch {least}, use adamw, or omit shard")


def _torch_version() -> tuple[int, int]:
    """Returns the installed torch's version, such as (2, 13), without importing it."""
    from importlib import metadata  # takes longer to import than all of this package's training/plan

    major, minor = metadata.version("torch").split(".")[:2]
    return int(major), int(minor)


def share(settings: TrainingSettings, rank: int, world: int) -> tuple[range, slice]:
    """Returns the batches of a step that process `rank` of `world` computes, and the rows that it takes of each.

    Each of the step's rows belongs to one process, and all have equally many, so that the mean of the processes' means
    is the mean over the step. Whole batches are distributed if `grad_accumulation_steps` is a multiple of `world`,
    which keeps each process's matrices as large as the settings specify; otherwise the rows of a batch are split too.
    """
    groups = math.gcd(settings.grad_accumulation_steps, world)
    return range(rank % groups, settings.grad_accumulation_steps, groups), slice(rank // groups, None, world // groups)


def command(run: Path, nproc: int) -> list[str]:
    """Returns the command that starts the worker of the run at `run`, or torchrun with `nproc` workers."""
    worker = ["-m", "tui_llm.training.worker", str(run)]
    if nproc == 1:
        return [sys.executable, *worker]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(nproc), *worker]


def start_worker(run: Run, config: RunConfig) -> subprocess.Popen[bytes]:
    """Starts the worker of a run in a session of its own. Raises `UserError` if that fails, which the run's status says too."""
    niceness = _niceness()
    begun = command(run.path, config.nproc)
    if niceness is not None:
        begun = ["nice", "-n", str(niceness), *begun]
    environment = {**ALLOCATOR, **threads(config.nproc), **child_environment()}
    if config.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    try:
        with storage.open_file(run.log_path, "ab") as log:
            worker = subprocess.Popen(
                begun,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=run.path,
                start_new_session=True,
                close_fds=True,
            )
    except OSError as error:
        run.write_status("failed", f"the worker can't be started: {error}")
        raise UserError(f"can't start the worker of run {run.name}: {error}") from error
    if niceness is not None:
        _nice_session(worker.pid, niceness)
    return worker


def _niceness() -> int | None:
    """Returns `TUI_LLM_NICE`, at most 19; None if it is not a whole number ≥ 0."""
    value = os.environ.get("TUI_LLM_NICE", "")
    return min(int(value), 19) if value.isascii() and value.isdecimal() and len(value) < 10 else None


def _nice_session(leader: int, niceness: int) -> None:
    """Sets the niceness of the session of process `leader`.

    Where Linux shares the CPUs among sessions first (autogroup, see sched(7)), a process's own niceness only counts
    against processes of its session, and a worker has a session of its own.
    """
    with contextlib.suppress(OSError):  # without autogroups; or the last change was less than 0.1 s ago
        Path(f"/proc/{leader}/autogroup").write_text(str(niceness))


def threads(nproc: int) -> dict[str, str]:
    """Returns environment variables that divide the CPU cores among the processes (torchrun's default: one thread)."""
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // nproc))} if nproc > 1 else {}


def json_lines(process: subprocess.Popen[bytes]) -> Generator[dict[str, Any]]:
    """Yields the JSON objects that a process prints, one a line, until its output ends; other lines are skipped."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            try:
                value = json.loads(line)
            except ValueError:  # truncated, or printed by a library
                continue
            if isinstance(value, dict):
                yield value


def child_environment() -> dict[str, str]:
    """Returns the environment for a child process that imports this same package from any folder."""
    return {**openmp.variables(), **os.environ, "PYTHONPATH": python_path()}


def python_path() -> str:
    """Returns a PYTHONPATH with which the worker, in another working directory, imports this same package."""
    places = [str(Path(place).absolute()) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    root = Path(__file__).resolve().parents[3]
    if not {"site-packages", "dist-packages"} & set(root.parts) and str(root) not in places:
        places.append(str(root))
    return os.pathsep.join(places)
