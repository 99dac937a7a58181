"""Helpers for tests of small runs: texts, settings, and workers that are killed at a chosen point."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests import HANG
from tui_llm.training.plan import launch
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import TrainingSettings, from_fields

SMALL_SHAPE = "--preset toy --layers 1 --heads 2 --width 16 --block-size 16 --batch-size 4 --device cpu".split()  # noqa: SIM905

TINY = TrainingSettings(
    tokenizer="byte", layers=1, heads=2, width=16, block_size=16, batch_size=4, steps=30, learning_rate=1e-2,
    min_learning_rate=1e-3, warmup_steps=5, eval_every=10, eval_batches=2, checkpoint_every=7, sample_tokens=4,
)  # fmt: skip


def words(count: int, seed: int = 1) -> str:
    """Returns a learnable text: few different words, in lines of eight."""
    draw = random.Random(seed)
    lines = [
        " ".join(draw.choices(("the", "cat", "sat", "on", "a", "mat", "and", "slept"), k=8)) for _ in range(count // 8)
    ]
    return ".\n".join(lines) + "\n"


def make(name: str, text: Path, **fields: Any) -> Run:
    """Creates a run with the settings `TINY`, some of them replaced, on the CPU."""
    return launch.create(name, [str(text)], from_fields(fields, TINY), preset="toy", device="cpu")


# ── workers in processes that are forked from one that has imported torch already ───────────────────────────

IMPORTED = (
    "tui_llm.training.worker.process",
    "numpy.ctypeslib",
    "numpy.ma",
    "numpy.random",
    "tiktoken",
    "torch.utils._device",
)
"""All that a worker imports: what it does is little more."""
DISTRIBUTED = ("torch._dynamo", "torch.distributed.fsdp")  # imported by DistributedDataParallel: longer than most runs

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([*IMPORTED, *DISTRIBUTED])


def begin(run: Run, die: tuple[str, int] | None = None, patience: float = 5.0) -> BaseProcess:
    """Starts a worker of `run`.

    `die` names a point (a function below) and a count: at that point, the worker kills itself with SIGKILL.
    """
    process = _context.Process(target=_work, args=(str(run.path), os.environ["TUI_LLM_HOME"], die, patience))
    process.start()
    return process


def work(run: Run, die: tuple[str, int] | None = None) -> int | None:
    """Runs a worker until it ends. Returns its exit status (−9: killed)."""
    process = begin(run, die)
    process.join()
    return process.exitcode


def _work(path: str, home: str, die: tuple[str, int] | None, patience: float) -> None:
    from tui_llm.training.worker import process

    log = os.open(f"{path}/worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["TUI_LLM_HOME"] = home
    process.PATIENCE = patience
    os.fsync = lambda _file: None  # not needed, since the machine is not killed; it would take half of the time
    if die is not None:
        MOMENTS[die[0]](_Countdown(die[1]))
    os._exit(process.main([path]))


class _Countdown:
    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(HANG)


def _half_a_line(now: _Countdown) -> None:
    from tui_llm.training.run import jsonl

    whole = jsonl.append

    def append(file: Any, value: dict[str, Any]) -> None:
        # Head scores are not counted: a line of them follows each evaluation. Nor are statistics of matrices.
        if not {"heads", "activation"} & value.keys() and now():
            file.write(json.dumps(value).encode()[:20])
            _kill()
        whole(file, value)

    jsonl.append = append


def _half_the_weights(now: _Countdown) -> None:
    from tui_llm.llm.model import checkpoint

    whole = checkpoint.save_file

    def save_file(tensors: Any, part: Path, metadata: Any = None) -> None:
        if now():
            whole(tensors, part, metadata=metadata)
            os.truncate(part, 100)
            _kill()
        whole(tensors, part, metadata=metadata)

    checkpoint.save_file = save_file


def _in_checkpoints(**functions: Any) -> None:
    """Replaces functions of `storage` for writing checkpoints, in this forked process only."""
    from types import SimpleNamespace

    from tui_llm.common import storage
    from tui_llm.training.worker import checkpoints

    checkpoints.storage = SimpleNamespace(**{**vars(storage), **functions})  # type: ignore[attr-defined]


def _around_the_rename(now: _Countdown) -> None:
    """Odd counts: the folder is complete, but not renamed.

    Even counts: it is renamed, and nothing has happened since.
    """
    from tui_llm.common import storage

    def sync(folder: Path) -> None:
        storage.sync_folder(folder)
        if now():
            _kill()

    _in_checkpoints(sync_folder=sync)


def _half_deleted(now: _Countdown) -> None:
    from tui_llm.common import storage

    def rmtree(folder: Path, **more: Any) -> None:
        if folder.name.endswith(".old") and folder.exists() and now():
            (folder / "model.safetensors").unlink()
            _kill()
        storage.rmtree(folder, **more)

    _in_checkpoints(rmtree=rmtree)


def _no_locks_of_folders(_now: _Countdown) -> None:
    """Does not kill: simulates a file system that locks files only."""
    from tui_llm.common import storage

    storage.lock_folder = lambda folder, shared=False: None  # type: ignore[assignment]


def _a_disk_turned_read_only(now: _Countdown) -> None:
    from tui_llm.training.run import jsonl

    whole = jsonl.append

    def append(file: Any, value: dict[str, Any]) -> None:
        if now():
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(file.name))
        whole(file, value)

    jsonl.append = append


def _a_clock_that_jumps(hours: _Countdown) -> None:
    """Does not kill: the wall clock jumps by this many hours after twelve lines."""
    from tui_llm.training.run import jsonl

    whole, clock, written = jsonl.append, time.time, 0
    time.time = lambda: clock() + (3600 * hours.left if written >= 12 else 0)  # in this forked process only

    def append(file: Any, value: dict[str, Any]) -> None:
        nonlocal written
        written += 1
        whole(file, value)

    jsonl.append = append


def _out_of_memory(now: _Countdown) -> None:
    """Does not kill: batches with more rows than the count raise the CPU allocator's out-of-memory error."""
    import torch

    from tui_llm.training.worker.loop import Trainer

    whole = Trainer._update

    def update(self: Trainer, number: int, lr: float) -> tuple[float, float]:
        if self.settings.batch_size > now.left and number > 3:
            torch.empty(1 << 60, dtype=torch.uint8)
        return whole(self, number, lr)

    Trainer._update = update  # type: ignore[method-assign]


def _held_at_a_step(number: _Countdown) -> None:
    """Does not kill: the worker stops at that step and waits to be killed."""
    from tui_llm.training.worker.loop import Trainer

    whole = Trainer._update

    def update(self: Trainer, step: int, lr: float) -> tuple[float, float]:
        if step > number.left:
            time.sleep(HANG)
        return whole(self, step, lr)

    Trainer._update = update  # type: ignore[method-assign]


MOMENTS: dict[str, Callable[[_Countdown], None]] = {
    function.__name__.strip("_").replace("_", " "): function
    for function in (
        _half_a_line,
        _half_the_weights,
        _around_the_rename,
        _half_deleted,
        _a_disk_turned_read_only,
        _a_clock_that_jumps,
        _out_of_memory,
        _held_at_a_step,
        _no_locks_of_folders,
    )
}


# ── reading runs ──────────────────────────────────────────────────────────────────────────────────────────────


def lines(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a .jsonl file; fails if one is damaged."""
    data = path.read_bytes() if path.exists() else b""
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def losses(run: Run) -> list[tuple[Any, ...]]:
    return [(m["step"], m["loss"], m["lr"], m["grad_norm"], m.get("val_loss")) for m in lines(run.metrics_path)]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def wait(until: Callable[[], object]) -> None:
    """Waits for a condition that another process fulfils; the tests' timeout ends a futile wait."""
    while not until():
        launch.reap()
        time.sleep(0.02)


def leftovers(folder: Path) -> list[str]:
    """Returns the partial files and folders anywhere under `folder`."""
    return [
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.name.endswith((".part", ".old")) or p.name.startswith(".tokens-")
    ]
