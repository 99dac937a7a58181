"""The processes of a soak: fakes of all that the app starts, and a check that nothing else is started.

The real ones take seconds, use the network, and do not take the same time twice. A fake worker is a small process, as a
run's lock and its pid belong to one; the others are objects (soak_answers.py).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from soak_answers import ANSWERS, AnswerProcess, Json, Outputs

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
WORKERS = 2  # alive at the same time, besides the soak's run
PACKAGE = "tui_llm.training.worker."
STARTERS = (
    *(f"tui_llm.training.plan.{name}" for name in ("processes", "subprocesses", "foreign", "climb")),
    "tui_llm.tui.models.pull", "tui_llm.tui.runs.run_actions",
)  # fmt: skip
"""The modules of the app that start processes, each by its own `subprocess`."""
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
        from tui_llm.training.plan import launch

        for name in STARTERS:
            module: Any = importlib.import_module(name)
            assert module.subprocess is subprocess, f"{name} does not start processes itself"
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
