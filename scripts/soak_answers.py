"""The fakes of processes that answer a question: objects of this process, which write what the real ones write.

They write a line at a time, when the soak permits it, so that a seed is reproducible and screens are seen that wait.
"""

from __future__ import annotations

import itertools
import json
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

LINES = 2  # lines that a process may write between two events

Json = dict[str, Any]


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
