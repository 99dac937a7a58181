"""The processes of a soak: fakes of all that the app starts, and a check that nothing else is started.

The real ones take seconds, use the network, and do not take the same time twice. A fake worker is a small process, as a
run's lock and its pid belong to one; the others are objects of this process, which write what the real ones write, a line
at a time: the soak decides when.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

WORKER = """
import fcntl, json, os, signal, sys, time
run, say = sys.argv[1], int(sys.argv[2])
os.chdir(run)
def write(state, message):
    status = json.load(open("status.json")) if os.path.exists("status.json") else {}
    status |= {"state": state, "message": message, "time": time.time(), "monotonic": time.monotonic()}
    with open("status.part", "w") as file:
        json.dump(status, file)
    os.replace("status.part", "status.json")
def stop(*_):
    write("stopped", sys.argv[3])
    os._exit(0)
lock = open("lock", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    os._exit(3)
signal.signal(signal.SIGTERM, stop)
open("pid", "w").write(str(os.getpid()))
write("running", sys.argv[3])
os.write(say, b"held")
os.close(say)
sys.stdin.buffer.read()  # until whoever started it has gone
"""
LINES = 2  # lines that a process may write between two events
WORKERS = 2  # alive at the same time, besides the soak's run
PACKAGE = "tui_llm.training.worker."
STARTS = (
    "subprocess.Popen",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.exec",
    "os.system",
    "pty.spawn",
)

Json = dict[str, Any]
_MESSAGE = "step 40 of 40 \x1b[31;1337m\x9b6n"
_UNREAD = "tui-llm: there is no \x1b]0;run\x07 of that name"  # foreign text, as an error may quote it


class NotExpected(RuntimeError):
    """The app started a process, or sent a signal, that the soak does not replace."""


class Starts:
    """Refuses and records each process that this one starts outside `expected`."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._expected = threading.local()

    def watch(self) -> None:
        """From now on, for good: an audit hook can't be removed."""
        sys.addaudithook(self._audit)

    @contextlib.contextmanager
    def expected(self) -> Iterator[None]:
        self._expected.now = True
        try:
            yield
        finally:
            self._expected.now = False

    def refuse(self, what: str) -> NotExpected:
        self.found.append(what)
        return NotExpected(what)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in STARTS and not getattr(self._expected, "now", False):
            raise self.refuse(f"a process was started: {event} {arguments!r:.300}")


class Outputs:
    """Lets the threads that read the fakes' output have a line each time that the soak permits it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.wake: Callable[[], object] = lambda: None
        self._waiting: dict[AnswerProcess, bool] = {}  # a process of which a line is awaited → whether it is permitted
        self._count = itertools.count()
        self._left = LINES
        self._open = False

    @property
    def blocked(self) -> int:
        """The number of threads that wait for a line."""
        with self.changed:
            return sum(not permitted for permitted in self._waiting.values())

    def refill(self) -> None:
        self._left = LINES

    def permit(self) -> bool:
        """Lets the oldest process that waits write a line: which one began to wait first, its thread's speed decides.
        Returns False if none may."""
        with self.changed:
            waiting = [process for process, permitted in self._waiting.items() if not permitted]
            if not waiting or self._left <= 0:
                return False
            self._left -= 1
            self._waiting[min(waiting, key=lambda process: process.number)] = True
            self.changed.notify_all()
            return True

    def number(self) -> int:
        return next(self._count)

    def wait(self, process: AnswerProcess) -> None:
        """Blocks until `process` may write a line, or has been killed."""
        with self.changed:
            if process.ended or self._open:
                return
            self._waiting[process] = False
            self.wake()
            self.changed.wait_for(lambda: self._open or self._waiting.get(process, True))
            self._waiting.pop(process, None)

    def forget(self, process: AnswerProcess) -> None:
        """Lets the thread that reads a killed process go on."""
        with self.changed:
            self._waiting.pop(process, None)
            self.changed.notify_all()

    def open(self) -> None:
        with self.changed:
            self._open = True
            self.changed.notify_all()


class Asked:
    """The stdin of an `AnswerProcess`."""

    def __init__(self, process: AnswerProcess) -> None:
        self._process = process
        self.closed = False

    def write(self, data: bytes) -> int:
        if self.closed:
            raise ValueError("write to closed file")
        if self._process.ended:
            raise BrokenPipeError
        self._process.take(json.loads(data))
        return len(data)

    def flush(self) -> None:
        if self._process.ended:
            raise BrokenPipeError

    def close(self) -> None:
        self.closed = True


class Written:
    """The stdout or stderr of an `AnswerProcess`."""

    def __init__(self, process: AnswerProcess, text: bool) -> None:
        self._process, self._text = process, text

    def __iter__(self) -> Iterator[Any]:
        while (line := self._process.next_line()) is not None:
            yield line if self._text else line.encode()

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        pass


class AnswerProcess:
    """In the place of a `Popen`: a process that answers requests with `answer`'s lines, and ends with `status` after the last one.

    Without requests (`asks`) it begins at once: `answer` is called with {}.
    """

    def __init__(
        self, outputs: Outputs, answer: Callable[[Json], list[str]], status: int, *, text: bool = False, asks: bool = True
    ) -> None:  # fmt: skip
        self.number = outputs.number()
        self.pid = 1 << 30  # no process has it
        self.returncode: int | None = None
        self.ended = False
        self._outputs, self._answer, self._status = outputs, answer, status
        self._lines: list[str] = [] if asks else answer({})
        self.stdin = Asked(self)
        self.stdout = self.stderr = Written(self, text)

    def take(self, asked: Json) -> None:
        self._lines = [line for line in self._lines if '"done"' in line] if "finish" in asked else self._answer(asked)

    def next_line(self) -> str | None:
        self._outputs.wait(self)
        if self.ended:
            return None
        if not self._lines:
            self._end(self._status)
            return None
        return self._lines.pop(0) + "\n"

    def _end(self, status: int) -> None:
        if not self.ended:
            self.ended, self.returncode = True, status
            self._outputs.forget(self)

    def kill(self) -> None:
        self._end(-signal.SIGKILL)

    def terminate(self) -> None:
        self._end(-signal.SIGTERM)

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self.ended:
            self._end(self._status)
        assert self.returncode is not None
        return self.returncode


class Processes:
    """What the app starts instead of processes. `recorded` are lines that the real ones wrote when the home was made, by
    module of training/worker; `kept` is the run whose worker the soak itself starts and ends."""

    def __init__(self) -> None:
        self.outputs, self.starts = Outputs(), Starts()
        self.recorded: dict[str, list[Json]] = {}
        self.kept: Path | None = None
        self._workers: list[tuple[Path, subprocess.Popen[bytes]]] = []
        self._popen = subprocess.Popen

    def replace(self) -> None:
        """Makes the app start fakes, and refuses all other processes from now on."""
        from tui_llm.training.plan import climb, foreign, launch, processes, subprocesses
        from tui_llm.tui.models import pull
        from tui_llm.tui.runs import run_actions

        modules: tuple[Any, ...] = (processes, subprocesses, foreign, climb, pull, run_actions)
        for module in modules:
            assert module.subprocess is subprocess, f"{module.__name__} does not start processes itself"
            module.subprocess = _with(subprocess, Popen=self.start, run=self.run)
        assert launch.os is os, f"{launch.__name__} does not send signals itself"  # type: ignore[attr-defined]
        launch.os = _with(os, kill=self.kill)  # type: ignore[attr-defined]
        self.starts.watch()

    # ── what the app calls ───────────────────────────────────────────────────────────────────────────────────────

    def start(self, command: Sequence[str], **options: Any) -> Any:
        """As `subprocess.Popen`."""
        words = list(command)
        module = words[words.index("-m") + 1] if "-m" in words else ""
        if module in ("tui_llm.training.worker", "torch.distributed.run"):
            return self._started(Path(options["cwd"]), self.work(Path(options["cwd"])))
        if module.startswith(PACKAGE) and (name := module.removeprefix(PACKAGE)) in ANSWERS:
            answer, status = ANSWERS[name]
            recorded = self.recorded.get(name, [])
            return AnswerProcess(self.outputs, lambda asked: list(map(json.dumps, answer(asked, recorded))), status)
        if "ladder" in words:  # its run is out of this fake's reach: it fails, and its log says why
            options["stdout"].write(_UNREAD.encode() + b"\n")
            return AnswerProcess(self.outputs, lambda _: [], 2, asks=False)
        if "pull" in words:
            said = ['{"doing": "asking the \\u001b]0;hub", "done": 1, "total": 3}'] * 3
            last = "tui-llm: the hub can not be reached\x1b[2J"
            return AnswerProcess(self.outputs, lambda _: [*said, last], 2, text=True, asks=False)
        raise self.starts.refuse(f"no fake for {words!r:.300}")

    def run(self, command: Sequence[str], **_options: Any) -> Any:
        """As `subprocess.run`."""
        if "export" not in command:
            raise self.starts.refuse(f"no fake for {list(command)!r:.300}")
        return SimpleNamespace(returncode=2, stderr=_UNREAD, stdout="")

    def kill(self, pid: int, number: int) -> None:
        """As `os.kill`. Waits for the worker's end, so that the next event finds it gone."""
        for _, process in self._workers:
            if process.pid == pid and number == signal.SIGTERM:
                process.send_signal(number)
                process.wait()
                return
        raise self.starts.refuse(f"signal {number} to process {pid}, which is no worker of the soak")

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def work(self, run: Path) -> subprocess.Popen[bytes]:
        """Starts a fake worker. Returns once it holds the run's lock, or has ended as it could not."""
        reader, writer = os.pipe()
        with self.starts.expected():
            process = self._popen(
                [sys.executable, "-I", "-S", "-c", WORKER, str(run), str(writer), _MESSAGE], pass_fds=(writer,), start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        os.close(writer)
        if not os.read(reader, 4):
            process.wait()
        os.close(reader)
        self._workers.append((run, process))
        return process

    def _started(self, run: Path, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """Ends the oldest workers that the app has started."""
        own = [one for one in self._workers if one[1].poll() is None and one[0] != self.kept]
        for one in own[:-WORKERS]:
            end(one[1])
        self._workers = [one for one in self._workers if one[1].poll() is None]
        return process

    def alive(self) -> list[Path]:
        """The runs that have a worker."""
        return [run for run, process in self._workers if process.poll() is None]

    def end_all(self) -> None:
        for _, process in self._workers:
            end(process)
        self._workers.clear()


def _replay(asked: Json, recorded: list[Json]) -> list[Json]:
    """A step that the real process recomputed, under the number that was asked for."""
    return [{"step": {**one["step"], "step": asked.get("step", 1)}} if "step" in one else one for one in recorded]


def _find_lr(_asked: Json, _recorded: list[Json]) -> list[Json]:
    trials = [{"rate": rate, "steps": 8, "loss": loss} for rate, loss in ((1e-4, 5.2), (1e-3, 4.5), (1e-2, None))]
    pick = {"rate": 1e-3, "steps": 8, "run_steps": 40, "trials": trials, "bracketed": True, "diverges_above": 1e-3}
    running = {"rate": 1e-4, "steps": 8, "step": 3, "loss": 5.4, "left": 50.0}
    begun = {"steps": 40, "rate": 1e-3, "device": "cpu", "step_seconds": 0.01}
    return [{"doing": "measuring a step\x1b[2J"}, {"begin": begun}, {"at": running}, *({"trial": one} for one in trials), {"pick": pick}]  # fmt: skip


def _run_time(_asked: Json, _recorded: list[Json]) -> list[Json]:
    parts = {
        "start": 2.0, "step": 0.01, "evaluation": 0.1, "checkpoint": 0.1, "steps_measured": 20, "rows": 4, "step_tokens": 128,
        "spread": 0.1, "contention": 1.2, "device": "cpu", "whole": True,
    }  # fmt: skip
    return [{"doing": "tokenizing\x1b[2J"}, {"ready": True}, {"parts": parts}]


def _budget(asked: Json, _recorded: list[Json]) -> list[Json]:
    return [{"ready": True}, {"problem": f"the machine can't be measured: {asked.get('device')}\x1b[2J"}]


def _step_time(_asked: Json, _recorded: list[Json]) -> list[Json]:
    return [{"ready": True}, *[{"rows": 4, "tokens": 128, "seconds": 0.01, "device": "cpu"}] * 3]


def _foreign(_asked: Json, recorded: list[Json]) -> list[Json]:
    return recorded


ANSWERS: dict[str, tuple[Callable[[Json, list[Json]], list[Json]], int]] = {
    "replay": (_replay, 0), "find_lr": (_find_lr, 0), "run_time": (_run_time, 0), "budget": (_budget, 1),
    "step_time": (_step_time, 0), "foreign": (_foreign, 0),
}  # fmt: skip
"""A module of training/worker that the app starts → what it writes, and its exit status."""


def end(process: subprocess.Popen[bytes] | None) -> None:
    """Ends a worker like SIGKILL."""
    if process is not None:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _with(module: ModuleType, **replaced: Any) -> ModuleType:
    stand_in = ModuleType(module.__name__)
    stand_in.__dict__.update(vars(module), **replaced)
    return stand_in
