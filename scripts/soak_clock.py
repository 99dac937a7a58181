"""An event loop on simulated time, which knows when the app has settled: nothing is ready, no thread is at work.

Timers of the app's fire in the order of their times, as fast as the machine can; time passes only where the soak lets it. So
nothing that happens depends on how fast the machine is, and a seed plays the same again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import selectors
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

PATIENCE = 0.05  # real seconds in `select` while threads are at work; whoever ends wakes it


class Stuck(Exception):
    """The app was busy with one event for longer than it may."""


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class SettledLoop(asyncio.SelectorEventLoop):
    """`busy` says whether a thread that isn't this loop's executor is at work; `release` lets such a thread go on that waits for
    permission, and says whether there was one."""

    def __init__(self, busy: Callable[[], bool], release: Callable[[], bool], bound: float) -> None:
        self.clock = Clock()
        self.bound = bound  # seconds of CPU
        self._busy, self._release = busy, release
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
        """Lets so much simulated time pass; ends once nothing more is to be done at that time."""
        self._until = self.clock.now + seconds
        self._settled = self.create_future()
        await self._settled

    def begin(self) -> None:
        """From now on the CPU time counts towards the bound."""
        self._began = time.process_time()

    @property
    def spent(self) -> float:
        return time.process_time() - self._began

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        if executor is None:
            executor = self._executor = getattr(self, "_executor", None) or concurrent.futures.ThreadPoolExecutor(6)
        future = executor.submit(function, *arguments)
        self._submitted += 1
        wrapped = asyncio.wrap_future(future, loop=self)  # before the callback below: its result is there first
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
            self._submitted > self._finished or self._busy()
        )  # before the look: what a thread posted last is seen then
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


def simulate_time(clock: Clock, packages: tuple[str, ...]) -> None:
    """Has the modules of `packages` that are loaded read `clock` where they read the monotonic clock."""
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
