"""An event loop on simulated time that detects when the app is idle: no callback is ready and no thread is working.

The app's timers fire in the order of their times, without real waiting; time advances only when the soak allows it. So
the result does not depend on the machine's speed, and a seed is reproducible.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import selectors
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

PATIENCE = 0.05  # real seconds in `select` while threads are working; a thread that finishes wakes it up


class Stuck(Exception):
    """One event took longer than the bound."""


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class SettledLoop(asyncio.SelectorEventLoop):
    """An event loop with a simulated clock.

    `busy` returns whether a thread other than this loop's executor is working. `release` lets a thread proceed if it
    waits for permission, and returns whether one did; `blocked` is how many of the executor's threads wait for that, or for
    another thread.
    """

    def __init__(
        self, busy: Callable[[], bool], release: Callable[[], bool], blocked: Callable[[], int], bound: float
    ) -> None:
        self.clock = Clock()
        self.bound = bound  # CPU seconds
        self._busy, self._release, self._blocked = busy, release, blocked
        self._until = self.clock.now
        self._settled: asyncio.Future[None] | None = None
        self._submitted = 0
        self._finished = 0
        self._began = time.process_time()
        self._turns = 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.clock.now

    async def settle(self, seconds: float) -> None:
        """Advances the simulated time by `seconds`; returns once nothing remains to be done at that time."""
        self._until = self.clock.now + seconds
        self._settled = self.create_future()
        await self._settled

    def begin(self) -> None:
        """Starts counting CPU time towards the bound."""
        self._began = time.process_time()

    @property
    def spent(self) -> float:
        return time.process_time() - self._began

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        if executor is None:
            executor = self._executor = getattr(self, "_executor", None) or concurrent.futures.ThreadPoolExecutor(64)
        future = executor.submit(function, *arguments)
        self._submitted += 1
        # added before the callback below, so that its result is set first
        wrapped = asyncio.wrap_future(future, loop=self)
        future.add_done_callback(self._one_finished)
        return wrapped

    def _one_finished(self, _future: object) -> None:
        self._finished += 1
        if not self.is_closed():
            self.call_soon_threadsafe(lambda: None)

    def select(self, real: Callable[[float], list[Any]], timeout: float | None) -> list[Any]:
        self._turns += 1
        if self._turns % 64 == 0 and self.spent > self.bound:
            raise Stuck(f"{self.spent:.1f} s of CPU and not settled yet")
        if timeout == 0 or self._settled is None:
            return real(0 if timeout == 0 else PATIENCE)
        busy = (
            self._submitted > self._finished + self._blocked() or self._busy()
        )  # evaluated before polling, so that a thread's last callback is not missed
        ready = real(0)
        if ready:
            return ready
        if busy:
            return real(PATIENCE)
        if self._release():
            return real(PATIENCE)
        due = self._due()
        if due is not None and due <= self._until:
            self.clock.now = max(self.clock.now, due)
            return []
        self.clock.now = max(self.clock.now, self._until)
        if not self._settled.done():
            self._settled.set_result(None)
            self._settled = None
        return []

    def _due(self) -> float | None:
        waiting = [handle for handle in self._scheduled[:1] if not handle.cancelled()]  # type: ignore[attr-defined]
        return waiting[0].when() if waiting else None


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    def __init__(self, loop: SettledLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        return self._loop.select(super().select, timeout)


class CountedLock:
    """In the place of a `threading.Lock`: counts the threads that wait for it, as they do nothing until it is released.

    Without it, the thread of a new replay that waits for the older one's to end would be taken for one that works, while
    the older one waits for its permission to read a line.
    """

    _changed = threading.Condition()
    _locks: weakref.WeakSet[CountedLock] = weakref.WeakSet()

    def __init__(self) -> None:
        self._held, self._waiting = False, 0
        with self._changed:
            self._locks.add(self)

    @classmethod
    def blocked(cls) -> int:
        """The number of threads that can't go on before another one releases its lock."""
        with cls._changed:
            return sum(max(0, lock._waiting - (not lock._held)) for lock in cls._locks)

    def __enter__(self) -> bool:
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._held)
            self._waiting -= 1
            self._held = True
        return True

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._held = False
            self._changed.notify_all()


def count_locks(packages: tuple[str, ...]) -> None:
    """Replaces `threading.Lock` by `CountedLock` in the loaded modules of `packages`."""
    stand_in = ModuleType("threading")
    stand_in.__dict__.update(vars(threading), Lock=CountedLock)
    for name, module in list(sys.modules.items()):
        if name.startswith(packages) and vars(module).get("threading") is threading:
            module.threading = stand_in  # type: ignore[attr-defined]


def simulate_time(clock: Clock, packages: tuple[str, ...]) -> None:
    """Replaces the monotonic clock by `clock` in the loaded modules of `packages`."""
    stand_in = ModuleType("time")
    stand_in.__dict__.update(vars(time), monotonic=clock, perf_counter=clock)
    clocks = (time.monotonic, time.perf_counter)
    for name, module in list(sys.modules.items()):
        if not name.startswith(packages):
            continue
        for attribute, value in list(vars(module).items()):
            if value is time:
                setattr(module, attribute, stand_in)
            elif any(value is real for real in clocks):
                setattr(module, attribute, clock)
