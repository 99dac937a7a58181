"""The worker process: `python -m tui_llm.training.worker RUN` trains one run from its last checkpoint until it ends.

It holds the run's lock while it lives. On SIGTERM or SIGINT it saves and exits; it ignores SIGHUP, so that closing the
terminal does not end it. Its state goes into the run directory; stdout and stderr are the run's log.

Under torchrun it is one of several processes (see distributed.py): rank 0 holds the lock, decides and writes.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import torch
from filelock import Timeout

from tui_llm.common.errors import UserError
from tui_llm.common.files import remedy, write_text
from tui_llm.common.memory import is_short
from tui_llm.llm.model import gpu_problems
from tui_llm.training.run import health
from tui_llm.training.run.alarm_kinds import DIVERGENCE, Alarm
from tui_llm.training.run.config import NewerRun
from tui_llm.training.run.run import Run
from tui_llm.training.run.run_lock import LockLost, RunLock
from tui_llm.training.worker import checkpoints, job, machine_sampler
from tui_llm.training.worker.distributed import Stopped
from tui_llm.training.worker.loop import Diverged
from tui_llm.training.worker.worker import Worker, log

PATIENCE = 5.0  # seconds to wait for another worker to release the lock


def main(arguments: list[str]) -> int:
    """Trains the run named on the command line.

    Returns the exit status: 2 for an invalid call or run, 3 if the run is locked.
    """
    if len(arguments) != 1:
        print("usage: python -m tui_llm.training.worker RUN_DIRECTORY", file=sys.stderr)
        return 2
    run = Run(Path(arguments[0]))
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        worker = Worker(run)
    except UserError as error:
        log(f"failed {error}")
        # Don't change the run of a later version, nor make anew one that was deleted.
        if not isinstance(error, NewerRun) and run.exists():
            with suppress(UserError):
                run.write_status("failed", str(error))
        return 2
    # before taking the lock: a process that sees it held may send a signal
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, worker.stop)
    torch.set_flush_denormal(True)
    if not worker.ranks.first:
        return work(worker)
    try:
        with run.held(PATIENCE) as lock:
            worker.lock = lock
            code = work(worker)
            _forget_stop(worker, lock)
            return code
    except Timeout:
        log(f"run {run.name} is being trained by another process")
        return 3
    except OSError as error:  # the lock can't be created
        log(f"failed {_cannot_write(error, run)}")
        return 1


def _forget_stop(worker: Worker, lock: RunLock) -> None:
    """Takes back the request to stop, which has been obeyed: torchrun may start the next worker, and does not reset it."""
    if not lock.lost and worker.run.control().get("stop"):
        with suppress(UserError):  # the disk is full
            worker.run.write_control(stop=False, paused=False)


def work(worker: Worker) -> int:
    """Trains and records in the status how that ended. Returns the exit status. Rank 0 must hold the run's lock."""
    run = worker.run
    try:
        if worker.ranks.first:
            write_text(run.path / "pid", str(os.getpid()))
            checkpoints.clean(run)
        job.train(worker)
        return 1 if worker.lost and not worker.done else 0
    except Stopped:
        if worker.lost:
            worker.report("failed", f"{worker.lost}; resume it")
            return 1
        saved = run.checkpoints()
        worker.report("stopped", f"saved at step {saved[-1][0]:,}" if saved else "stopped before the first step")
        return 0
    except LockLost as error:  # another worker may own the files now
        log(f"failed {error}")
        worker.ranks.fail(str(error))
        return 3
    except UserError as error:
        message = str(error)
    except Diverged as error:
        message = str(error)
        if worker.ranks.first:
            with suppress(OSError):  # a full disk: the status says it too
                health.record(run, [Alarm(DIVERGENCE, error.bad + 1, error.bad + 1, message)])
        if worker.ranks.first and checkpoints.drop_bad(run, error.bad):  # saved before the divergence was noticed
            message += f". Checkpoint {error.bad:,} contains those weights: it was deleted, the one before is kept"
    except (torch.OutOfMemoryError, MemoryError):
        message = worker.out_of_memory()
    except OSError as error:
        message = _cannot_write(error, run)
    except Exception as error:  # any error: the status reports it; the traceback goes to the log
        log(traceback.format_exc())
        message = worker.ranks.lost(error) or _of_any_error(worker, error)
    try:
        if not worker.ranks.first:
            log(f"process {worker.ranks.rank}: {message}")
            worker.ranks.fail(message)
        worker.report("failed", " ".join(message.split()))
    except UserError as error:
        log(f"and: {error}")
    return 1


def _of_any_error(worker: Worker, error: Exception) -> str:
    if is_short(error):
        return worker.out_of_memory()
    # Nothing can be read from the GPU to save it. NVML may know more than the error says.
    if problem := (machine_sampler.gpu_problem() or gpu_problems.of_error(error)):
        saved = worker.run.checkpoints()
        return f"{problem}. Resume it from {f'step {saved[-1][0]:,}' if saved else 'its beginning'}, on the CPU with --device cpu"
    return f"{type(error).__name__}: {error} (see {worker.run.log_path})"


def _cannot_write(error: OSError, run: Run) -> str:
    return f"{error.strerror or error} ({error.filename or run.path}); {remedy(error)}, then resume"
