"""Create, start, stop, pause and resume training runs. Does not import torch.

The worker is a separate process in its own session: it survives the end of the terminal and of this program. All state
is in the run directory, where any process can read it at any time.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from filelock import Timeout

from tui_llm.common import files, foreign_files, paths, storage
from tui_llm.common.errors import UserError
from tui_llm.facts.pin import Pin
from tui_llm.llm.model.device_names import check_device
from tui_llm.training.plan import processes
from tui_llm.training.plan import start as start_from
from tui_llm.training.run import batch, changes, pins, run_lock
from tui_llm.training.run.branch import BranchOrigin
from tui_llm.training.run.config import RunConfig
from tui_llm.training.run.run import ANSWERS, Run, check_name
from tui_llm.training.run.settings import EXECUTION, PRETRAINING, TrainingSettings, from_fields


class TokenizedRows(Protocol):
    """Tokenized pairs or prompts (`llm/data/answer_rows.py`, which the screen does not import: it needs tiktoken)."""

    def save(self, path: Path) -> None: ...


def create(
    name: str,
    corpus: list[str],
    settings: TrainingSettings,
    *,
    preset: str,
    device: str = "auto",
    model: Path | None = None,
    pinned: Sequence[Pin] = (),
    tensorboard: bool = False,
    nproc: int = 1,
    shard: bool = False,
    rows: TokenizedRows | None = None,
    branch: BranchOrigin | None = None,
) -> Run:
    """Creates the directory of a new run.

    `model` is the folder of the model that `settings.from_model` names, `pinned` are the prompts to read at each evaluation, `branch` is
    where a branch begins. `rows` are the corpus of a run that learns from answers, tokenized; without them the worker tokenizes it, and
    here only its form is checked. Raises `UserError` if the name is taken, if the beginning of the corpus can't be read or is not text, if
    it is too small for any vocabulary, or has no documents to shuffle; if a row of pairs or prompts is not valid; ValueError if only one of
    `model` and `settings.from_model` is given.

    The name of a run that failed before its first step can be used again.
    """
    from tui_llm.llm.data import corpora  # imported here, so that watching runs starts faster
    from tui_llm.training.plan import answer_files

    if (model is None) == bool(settings.from_model):
        raise ValueError("give from_model and the folder of that model, or neither")
    processes.check(settings, nproc, shard=shard)
    run = Run(paths.runs_dir() / check_name(name))
    if run.exists() and not _failed_at_once(run):
        raise UserError(f"a run {name!r} already exists; resume it (--resume) or choose another name")
    answers = settings.objective != PRETRAINING
    if answers and rows is None:
        answer_files.check(settings.objective, corpus)
    if not corpus and not answers:
        raise UserError(f"name a text file or a folder to train on, or {' or '.join(corpora.NAMES)}")
    try:
        places = tuple(map(corpora.place, corpus))
        if not answers:
            corpora.check(places, settings.text_format, documents=settings.shuffle_documents == "on")
            corpora.check_size(places, settings.validation_fraction, settings.block_size, settings.text_format)
        config = RunConfig(places, preset, device, settings, tensorboard, nproc, shard)
        if branch is not None:
            config = branch.configured(config)
        if run.exists():
            run.delete()
        files.write_folder(run.path, lambda folder: fill(Run(folder), config, model, pinned, rows, branch))
    except FileExistsError as error:
        raise UserError(f"{run.path} already exists and is not a run; delete it, or choose another name") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: `~name` of an unknown user
        raise UserError(f"can't make the run {name}: {files.cannot_write(run.path, error)}") from error
    return run


def fill(run: Run, config: RunConfig, model: Path | None, pinned: Sequence[Pin], rows: TokenizedRows | None = None,
         branch: BranchOrigin | None = None) -> None:  # fmt: skip
    """Writes the files of a new run. The directory gets its final name once it is complete."""
    if model is not None:
        start_from.copy(model, run)
    if branch is not None:
        branch.copy(run)
    if rows is not None:
        rows.save(run.path / ANSWERS)
    if pinned:
        pins.write(run.pins_path, pinned)
    run.write_config(config)


def _failed_at_once(run: Run) -> bool:
    return run.status().state == "failed" and not run.alive() and run.last_metric() is None and not run.checkpoints()


def resume_step(run: Run) -> int:
    """Returns the step after which a run without a live worker continues: that of its last checkpoint."""
    status = run.status()
    return max([step for step, _ in run.checkpoints()] + [status.step if status.state == "finished" else 0])


def set_steps(run: Run, steps: int) -> None:
    """Changes the total number of steps of a run without a live worker. The remaining ones follow the schedule for `steps`.

    Raises `UserError` if a worker is training the run, if it has a time budget, or unless `steps` is more than `resume_step`.
    """
    settings = run.config().settings
    check_not_training(run)
    if settings.minutes:
        raise UserError(f"run {run.name} ends by its time budget; give --minutes instead of --steps")
    if steps <= (done := resume_step(run)):
        raise UserError(f"run {run.name} continues from step {done:,}; give more steps than that")
    rewrite(run, dataclasses.replace(settings, steps=steps))


def change_batch_size(run: Run, batch_size: int, grad_accumulation_steps: int) -> None:
    """Changes the batch size of a run without a live worker, keeping its steps: smaller batches need less memory.

    Row k of a run depends on the seed and k alone, and a step takes the next `batch_size` × `grad_accumulation_steps`
    rows. If the product stays the same, every step uses the same rows as before, and the losses are equal except for
    rounding (and dropout's random numbers). The held-out rows stay the same too. Raises `UserError` if that is not possible, or if a
    worker is training the run.
    """
    s = run.config().settings
    if (batch_size, grad_accumulation_steps) == (s.batch_size, s.grad_accumulation_steps):
        return
    check_not_training(run)
    rows, held_out = s.batch_size * s.grad_accumulation_steps, s.eval_batches * s.batch_size
    settings = from_fields({"batch_size": batch_size, "grad_accumulation_steps": grad_accumulation_steps}, s)
    if batch_size * grad_accumulation_steps != rows:
        raise UserError(
            f"run {run.name} was started with another batch size: its steps have {s.batch_size} × {s.grad_accumulation_steps} rows "
            f"(batch size × gradient accumulation steps); give two numbers whose product is {rows}, or start a new run"
        )
    if held_out % batch_size:
        raise UserError(
            f"the {held_out} held-out rows of run {run.name} can't be split into batches of {batch_size}; give a batch size "
            f"that divides {s.batch_size}"
        )
    rewrite(run, dataclasses.replace(settings, eval_batches=held_out // batch_size))


def change_execution(run: Run, given: Mapping[str, Any]) -> None:
    """Changes settings in `EXECUTION` for the next worker. Raises `UserError` if a worker is training the run."""
    settings = run.config().settings
    changed = from_fields({name: value for name, value in given.items() if name in EXECUTION}, settings)
    if changed != settings:
        rewrite(run, changed)


def enable_tensorboard(run: Run) -> None:
    """Makes the next worker write TensorBoard event files. Raises `UserError` if a worker is training the run."""
    check_not_training(run)
    run.write_config(dataclasses.replace(run.config(), tensorboard=True))


def rewrite(run: Run, settings: TrainingSettings) -> None:
    """Replaces the settings of a run. Raises `UserError` if a worker is training it."""
    check_not_training(run)
    run.write_config(dataclasses.replace(run.config(), settings=settings))


def check_not_training(run: Run) -> None:
    """Raises `UserError` if a worker is training the run, or starting to."""
    if run.taken():
        raise UserError(f"run {run.name} is being trained; stop it first (tui-llm stop {run.name})")


def set_processes(run: Run, *, nproc: int | None = None, shard: bool | None = None, device: str | None = None) -> None:
    """Sets the number of worker processes, FSDP sharding and the device of a run; None keeps the current value. Raises
    `UserError` if the settings don't allow it, or if a worker is training the run."""
    config = run.config()
    changed = dataclasses.replace(
        config,
        nproc=config.nproc if nproc is None else nproc,
        shard=config.shard if shard is None else shard,
        device=config.device if device is None else check_device(device),
    )
    if changed == config:
        return
    processes.check(config.settings, changed.nproc, shard=changed.shard)
    check_not_training(run)
    run.write_config(changed)


def start(run: Run) -> None:
    """Starts the worker of `run` in the background and returns at once. It resumes from a checkpoint if there is one.

    Raises `UserError` if a worker is training the run already, or is starting to.
    """
    config = run.config()
    taken = UserError(f"run {run.name} is being trained already; watch it, or stop it first")
    if run.alive():
        raise taken
    try:
        # The lock is held until the worker's pid is recorded, so that no other start comes between.
        with run.held(patience=1):
            _check_not_starting(run)
            storage.unlink(run.path / "pid", missing_ok=True)  # the previous worker's: its pid may have been reused
            forget_requests(run)
            run.write_status("starting", "starting the worker")
            process = processes.start_worker(run, config)
            try:
                run.write_control(starting=process.pid)
            except UserError:  # without its pid on record, a second start could come between
                process.kill()
                process.wait()
                raise
            _children.append((run, process))
    except Timeout:
        raise taken from None
    except OSError as error:
        raise UserError(f"can't write in {run.path}: {error.strerror or error}") from error


def forget_requests(run: Run) -> None:
    """Takes back what earlier workers were asked for, so that the next one trains. Raises `UserError` if that can't be written."""
    run.write_control(paused=False, stop=False, save=None, batch=None, starting=None)


def _check_not_starting(run: Run) -> None:
    """Raises `UserError` if a worker has been started that has not acquired the lock yet: importing torch takes seconds."""
    if (pid := run.starting()) is not None:
        raise UserError(f"run {run.name} is being started already, by process {pid}; watch it, or stop it first")


def resume(run: Run) -> None:
    """Like `start`; after running out of memory, first changes to the smaller batch size of the status."""
    fits = run.status().fits
    if fits is not None:
        change_batch_size(run, *fits)
    start(run)


_children: list[tuple[Run, subprocess.Popen[bytes]]] = []
"""Workers that this process started, kept only so that they are reaped when they end."""


def started_here(run: Run) -> bool:
    """Whether a worker that this process started for `run` has not ended, as far as `reap` knows."""
    return any(child.path == run.path for child, _ in _children)


def reap() -> None:
    """Reaps ended workers that this process started, so that none stays a zombie.

    A worker that ended before it could write a status, for example because torch can't be imported, is recorded as
    failed.
    """
    for child in list(_children):
        run, process = child
        if process.poll() is None or child not in _children:
            continue
        later = _children[_children.index(child) + 1 :]  # an earlier one may take some time to end
        _children.remove(child)
        if any(other.path == run.path for other, _ in later):
            continue  # the run has been resumed: its status is the new worker's
        mine = run.control().get("starting") in (None, process.pid)  # no other process has started a worker since
        if run.exists() and mine and not run.alive() and run.facts().get("state") == "starting":
            run.write_status(
                "failed",
                f"its worker ended before it began, with exit status {process.returncode}; see {run.log_path}",
            )


def wait_until_held(run: Run, timeout: float = 600.0) -> bool:
    """Waits until the run's worker holds its lock or has ended. Returns whether the lock is held.

    `timeout`, in seconds, guards against a hang: on a busy machine, importing torch may take a minute.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if run.alive():
            return True
        reap()
        if run.status().state != "starting" and not started_here(run):
            return False  # a worker that we started may still be importing after `STARTING_GRACE`
        time.sleep(0.05)
    return False


def wait_until_gone(run: Run, timeout: float = 60.0) -> bool:
    """Waits until no worker holds the run or is starting, for at most `timeout` seconds. Returns whether that is so."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        reap()
        if not run.taken():
            return True
        time.sleep(0.05)
    return False


def pause(run: Run) -> None:
    """Asks the worker to save and pause. Raises `UserError` if control.json can't be written."""
    run.write_control(paused=True)


def unpause(run: Run) -> None:
    """Asks the worker to continue. Raises `UserError` if control.json can't be written."""
    run.write_control(paused=False)


def save(run: Run) -> None:
    """Requests a checkpoint now. Raises `UserError` if no worker is training the run."""
    check_training(run)
    changes.request_save(run)


def show_batch(run: Run) -> int:
    """Requests the batch of the next step (see `batch.newest`) and returns the request's number.

    Raises `UserError` if no worker is training the run.
    """
    check_training(run)
    return batch.request(run)


def change_learning_rate(run: Run, peak: float) -> None:
    """Requests a schedule that peaks at `peak` from the next step on; `min_learning_rate` is scaled with it.

    It takes effect at the next step of the current worker, or of the one that resumes the run. Raises `UserError` if
    the run is finished or `peak` is invalid.
    """
    if run.status().state == "finished":
        raise UserError(f"run {run.name} is finished; continue it with more steps (--resume --steps N) first")
    changes.request_learning_rate(run, peak)


def peak_learning_rate(run: Run) -> float:
    """Returns the schedule's peak from the next step on, including pending changes.

    Raises `UserError` if the run's files are damaged.
    """
    made = changes.read(run)
    step = run.status().step + 1
    pending = changes.requested(step, run.control())
    settings = run.config().settings
    return changes.settings_at(settings, [*made, *pending], step).learning_rate


def check_training(run: Run) -> None:
    """Raises `UserError` unless a worker is training the run, or starting to."""
    if not run.alive() and run.status().state != "starting":
        raise UserError(f"run {run.name} is not being trained")


def stop(run: Run) -> None:
    """Asks the worker to save and exit (SIGTERM) and returns at once.

    Raises `UserError` if no worker is training the run.
    """
    check_training(run)
    pid = _worker_pid(run)
    if pid is None:  # its pid is not known yet: request it through control.json
        run.write_control(stop=True)
        return
    try:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, signal.SIGTERM)
    except PermissionError as error:
        raise UserError(f"run {run.name} is trained by another user's process, {pid}; only they can stop it") from error


def _worker_pid(run: Run) -> int | None:
    """Returns the pid that the lock holder recorded; None if there is none or it is not a worker of this run."""
    if Path("/proc/self/cmdline").exists():
        return run_lock.worker_pid(run.path)
    try:
        pid = int(foreign_files.read_regular(run.path / "pid", 100))
    except (OSError, ValueError):
        return None
    return pid if pid > 0 else None  # without /proc, the pid can't be verified
