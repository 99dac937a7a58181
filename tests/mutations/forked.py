"""Runs a call in a forked child: limits, exit status, output, CPU, memory.

The parent has imported everything, so that the child starts fast.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CPU = 10  # seconds; `scripts/mutate_files.py --cpu` changes it
ROOM = 3 << 30  # bytes of address space beyond this process's: a limit that protects the machine
_IDLE = 20.0  # a child is considered hung if it and its own children sleep without CPU time for this many seconds


@dataclass(frozen=True, slots=True)
class Ending:
    """The outcome of a call.

    `code` is the exit status, or `-N` after signal N; `memory` is the peak resident memory in bytes.
    """

    code: int
    out: str
    err: str
    cpu: float
    memory: int
    hung: bool = False


def run(work: Callable[[], int | None]) -> Ending:
    """Runs `work` in a child, with its return value as exit status; an exception is printed as the interpreter does."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _child(work, out.fileno(), err.fileno())
        code, usage, hung = _wait(pid)
        for file in (out, err):
            file.seek(0)
        return Ending(
            code,
            out.read(1 << 24).decode("utf-8", "replace"),
            err.read(1 << 20).decode("utf-8", "replace"),
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss * 1024,
            hung,
        )


def _child(work: Callable[[], int | None], out: int, err: int) -> None:
    code: int | None = 99
    try:
        os.setsid()
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        space = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU + 2))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code or 0)


def _wait(pid: int) -> tuple[int, resource.struct_rusage, bool]:
    """Returns (exit status, usage, whether it hung).

    A child hangs if it and its own children sleep and use no CPU time for `_IDLE` seconds. One that waits for the disk
    (state D) does not sleep.
    """
    before, since, session = -1, time.monotonic(), -1
    pause = 0.002
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage, False
        state, spent = _doing(pid)
        if spent != before or state != "S":
            before, since = spent, time.monotonic()
        elif time.monotonic() - since > _IDLE:
            awake, now = _session(pid)
            if awake or now != session:
                session, since = now, time.monotonic()
                continue
            os.killpg(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            return os.waitstatus_to_exitcode(status), usage, True
        time.sleep(pause)
        pause = min(0.05, pause * 1.5)


def _doing(pid: int) -> tuple[str, int]:
    """Returns (the process's state, its clock ticks of CPU time)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return "R", -1
    return fields[0], int(fields[11]) + int(fields[12])


def _session(pid: int) -> tuple[bool, int]:
    """Returns (whether a process of the session that `pid` leads can run or waits for the disk, the clock ticks of CPU time
    of all of them).

    On a busy machine, a worker may sleep longer than `_IDLE` until a process that it has started is given a core.
    """
    awake, spent = False, 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == pid:
            awake = awake or fields[0] not in "SZ"
            spent += int(fields[11]) + int(fields[12])
    return awake, spent
