"""Soak test: the app under random keys, clicks, pastes, resizes and answers, for any number of events.

A seed is reproducible.

python scripts/soak.py [--seed S] [--events N] [--routes] [--keep-going]

The real app with the real engine runs in this process on simulated time (soak_clock.py); after each event it runs until
it is idle. After each event: the log is empty, no exception was raised anywhere, the app, its screen and the focused
widget answer a message, the CPU time is within a bound, no foreign text reached the terminal unsanitized, and no process
was started but fakes. All this holds for the end of the app too. At the end, in the lab with nano open: memory is within
10 % of its value after 5,000 events. If one of these fails, the last 30 events are printed and the exit status is 1.
With --routes, each screen is opened first, quietly, one after another. The screens that were never open are printed at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import faulthandler
import gc
import hashlib
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ |= {
    "TEXTUAL_ANIMATIONS": "none",
    "TERM": "xterm-256color",
    "COLORTERM": "truecolor",
    "TEXTUAL_COLOR_SYSTEM": "truecolor",
}

from soak_checks import Broken, Faults, import_screens, say, screen_names, too_long
from soak_clock import CountedLock, SettledLoop, count_locks, simulate_time
from soak_engine import Gate, GatedEngine, note_rest
from soak_events import Event, Events
from soak_home import Home
from soak_routes import ARRIVES, ESCAPE, ROUTES, route, typed
from soak_terminal import SoakDriver

from tui_llm.common import memory, onednn

BOUND = 30.0  # CPU seconds that an event may take
HANG = 600.0  # real seconds
MOMENT = 0.06  # simulated seconds after each event, for paints and late answers
TIDY = 500  # number of events between two calls of `tidy`
SETTLED = 5_000  # number of events after which memory may grow by 10 %


class Soak:
    def __init__(self, options: argparse.Namespace, home: Home) -> None:
        self.options = options
        self.home = home
        self.gate = Gate()
        self.faults = Faults()
        self.recent: collections.deque[str] = collections.deque(maxlen=30)
        self.number = 0
        self.broken: collections.Counter[str] = collections.Counter()
        self.quits = self.apps = self.reads = 0
        self.slowest: list[tuple[float, int, str]] = []
        self.memory: dict[int, int] = {}
        self.outputs = home.processes.outputs
        self.seen: collections.Counter[str] = collections.Counter()  # the screens that were open, by class
        self.loop = SettledLoop(
            self._busy, self._permit, lambda: self.outputs.blocked + CountedLock.blocked(), options.bound
        )
        self.outputs.wake = lambda: self.loop.is_closed() or self.loop.call_soon_threadsafe(lambda: None)
        self.began = time.process_time()
        self.app: Any = None
        self.driver: Any = None
        self.engine: Any = None

    # ── the app ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _open_engine(self) -> GatedEngine:
        from tui_llm.engine import PipelineEngine

        self.engine = self.engine or GatedEngine(PipelineEngine("cpu"), self.gate)
        return self.engine

    def _make_app(self) -> Any:
        from tui_llm.tui.app import LabApp

        soak = self

        class SoakApp(LabApp):
            async def action_quit(self) -> None:
                soak.quits += 1  # tested by scripts/ends.py

            def open_url(self, url: str, *, new_tab: bool = True) -> None:
                pass

        app = SoakApp(self._open_engine, model="nano", prompt="The cat sat on the")
        app.driver_class = SoakDriver
        return app

    def _busy(self) -> bool:
        """Whether the engine's thread is working: neither idle nor waiting at the gate."""
        if self.app is None:
            return False
        client = self.app.lab_screen.context.client
        if not client._thread.is_alive() or self.gate.blocked:
            return False
        with client._wake:
            return not (getattr(client, "resting", False) and type(client)._seen_next(client) is None)

    def _permit(self) -> bool:
        """Lets the engine make a call, or a fake process write a line."""
        return self.gate.permit() or (not self.gate.held and self.outputs.permit())

    def _refill(self) -> None:
        self.gate.refill()
        self.outputs.refill()

    async def _start(self) -> asyncio.Task[None]:
        note_rest(self.loop)
        self.apps += 1
        self.app = self._make_app()
        self.gate.held = 0
        self._refill()
        task = asyncio.get_running_loop().create_task(self.app.run_async(size=(120, 40)))
        await self.loop.settle(1.0)
        while self.app.lab_screen.weights is None and not task.done():
            await self.loop.settle(0.1)
        self.driver = self.app._driver
        return task

    async def _stop(self, task: asyncio.Task[None]) -> None:
        """Ends the app, and looks once more for what must not occur."""
        self.gate.open()
        self.outputs.open()
        if not task.done():
            self.app.exit()
            await self.loop.settle(1.0)
        await asyncio.wait([task], timeout=1)
        if not task.done():
            raise Broken("the app does not end")
        await task
        if self.app._exception is not None:
            raise Broken(f"the app ended: {self.app._exception!r}")
        self._look()

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _do(self, event: Event) -> None:
        driver = self.app._driver
        self.driver = driver
        self._refill()
        if self.gate.held:
            self.gate.held -= 1
        if event.kind == "type":
            driver.feed(event.text)
        elif event.kind == "resize":
            driver.resize(int(event.x), int(event.y))
        elif event.kind == "wait":
            await self.loop.settle(event.x)
        elif event.kind == "hold":
            self.gate.held = int(event.x)
        elif event.kind == "grow":
            self.home.grow(int(event.x))
        elif event.kind == "save":
            self.home.save()
        elif event.kind == "end":
            self.home.end_worker()
        elif event.kind == "start":
            self.home.start_worker()
        answered: list[object] = []
        self.app.call_later(answered.append, "app")  # queued after the event
        await self.loop.settle(MOMENT)
        if event.kind == "type" and driver._parser._timeout_time is not None:
            await self.loop.settle(0.11)
            driver.tick()
            await self.loop.settle(MOMENT)
        await self._check(answered)

    async def _check(self, answered: list[object]) -> None:
        if self.app._exit or not self.app.is_running:
            raise Broken(f"the app ended; {self.app._exception!r}")
        if not answered:
            raise Broken("the app does not answer")
        pumps = [self.app.screen, *([self.app.screen.focused] if self.app.screen.focused else [])]
        for pump in pumps:
            pump.call_later(answered.append, pump)
        await self.loop.settle(0)
        for pump in pumps:
            if pump not in answered and pump.is_running:
                raise Broken(f"{pump} does not answer")
        self._look()

    def _look(self) -> None:
        """Raises `Broken` for what was found since the last time."""
        self.seen.update({type(screen).__name__ for screen in self.app.screen_stack})
        leaks, self.driver.leaks = self.driver.leaks, []
        if leaks:
            raise Broken(f"reached the terminal: {leaks[0]}")
        starts, self.home.processes.starts.found = self.home.processes.starts.found, []
        if starts:
            raise Broken("\n".join(starts))
        if self.faults.found:
            raise Broken("\n".join(self.faults.found))
        if self.loop.spent > self.options.bound:
            raise Broken(f"{self.loop.spent:.1f} s of CPU for one event")

    async def _visit(self) -> None:
        """Opens each screen by its route, from the lab, one after another."""
        wrong = []
        for scope in ROUTES:
            await self._go_home(settled=False)
            for event in (*[typed(ESCAPE)] * 4, *route(scope)):
                self._begin(event)
                await self._do(event)
            found = self._where()
            say(f"route {scope}: {found}")
            if not f"{found} ".startswith(f"{ARRIVES[scope]} "):
                wrong.append(f"the route to {scope} leads to {found}, not to {ARRIVES[scope]}")
        if wrong:
            raise Broken("\n".join(wrong))
        await self._go_home()

    def _begin(self, event: Event) -> None:
        self.reads += 1
        self.recent.append(f"{self.number}: {event}")
        self._arm()
        self.loop.begin()

    async def _run(self) -> None:
        self.faults.install(self.loop)
        random.seed(self.options.seed)  # the source of the app's seeds
        task = await self._start()
        if self.faults.found:
            raise Broken("\n".join(self.faults.found))
        self.began = time.process_time()
        tidied = reported = 0
        if self.options.routes:
            await self._visit()
        for event in Events(self.options.seed):
            if self.number >= self.options.events:
                break
            self.number += event.count
            self._begin(event)
            try:
                await self._do(event)
            except Broken as error:
                if not self._told(error):
                    break
                self.faults.found.clear()
                if not self.app.is_running or task.done() or self.app._exit:
                    await asyncio.wait([task], timeout=5)
                    task = await self._start()
            if self.options.verbose:
                say(f"{self.recent[-1]} → {self._where()}")
            spent = self.loop.spent
            self.slowest = sorted([*self.slowest, (spent, self.number, str(event)[:80])], reverse=True)[:5]
            if self.number - tidied >= TIDY:
                tidied = self.number
                self.home.tidy()
            if self.number - reported >= self.options.report:
                reported += self.options.report
                await self._go_home()
                self._report()
        self._begin(Event("end"))
        await self._go_home()
        self._report()
        await self._stop(task)
        self._disarm()

    async def _go_home(self, settled: bool = True) -> None:
        """Goes back to the lab and opens nano, so that memory is always measured in the same place: what screens cache
        has been freed, and the same weights are in memory. Unless `settled`, what screens have asked for may still come."""
        self.gate.held = 0
        while len(self.app.screen_stack) > 1:
            self.app.screen.dismiss(None)
            await (self._quiet() if settled else self.loop.settle(MOMENT))
        if settled or self.app.lab_screen.weights.name != "nano":
            self.app.lab_screen.context.open_model("nano")
            await self._quiet()

    async def _quiet(self) -> None:
        """Runs the app until all that it has asked the engine for is done."""
        for _ in range(10):
            self._refill()
            await self.loop.settle(0.5)

    def _where(self) -> str:
        """Returns the resulting state; two runs of a seed must agree on it."""
        screen, lab = self.app.screen, self.app.lab_screen
        state = repr((lab.prompt.prompt_text, lab.lab.steps, lab.lab.number, self.home.step))
        shown = hashlib.sha256(state.encode("utf-8", "replace")).hexdigest()[:8]
        return (
            f"{type(screen).__name__} {screen.focused and (screen.focused.id or type(screen.focused).__name__)} {shown}"
        )

    def _told(self, error: Exception) -> bool:
        """Reports a failure, each kind once. Returns whether to continue."""
        app = self.app
        what = str(error)
        if getattr(app, "_exception", None) is not None and not self.faults.found:
            what += "\n" + "".join(traceback.format_exception(app._exception))
        kind = what.strip().splitlines()[-1][:160]
        self.broken[kind] += 1
        if self.broken[kind] == 1:
            say(f"\nBROKEN at event {self.number} of seed {self.options.seed}: {what}")
            say("the last events:\n  " + "\n  ".join(self.recent))
            say(f"again: python scripts/soak.py --seed {self.options.seed} --events {self.number}\n")
        return bool(self.options.keep_going)

    def _arm(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, self.options.bound * 2)
        if self.reads % 50 == 1:
            faulthandler.dump_traceback_later(HANG, exit=True, file=sys.__stderr__)

    def _disarm(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()

    def _report(self) -> None:
        before = memory.resident_bytes() or 0
        gc.collect()
        memory.trim()  # as the engine's thread does when it has been idle for a second of real time
        self.memory[self.number] = memory.resident_bytes() or 0
        spent = time.process_time() - self.began
        say(
            f"{self.number:>7,} events  {spent:8.1f} s CPU  {self.number / spent:5.1f} events/s  "
            f"{before / 1e6:6.1f} MB, {self.memory[self.number] / 1e6:6.1f} after gc, most "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f}  {len(gc.get_objects()):,} objects  "
            f"{threading.active_count()} threads  {sum(1 for _ in Path('/dev/fd').iterdir())} files  "
            f"{sum(self.broken.values())} broken"
        )

    def run(self) -> int:
        signal.signal(signal.SIGPROF, too_long)
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._run())
        except BaseException as error:  # any error: print it after restoring the streams that the app has replaced
            self._disarm()
            for frame in traceback.format_exception(error):
                say(frame.rstrip())
            self._told(error)
            return 1
        spent = time.process_time() - self.began
        say(f"seed {self.options.seed}: {self.number:,} events in {self.reads:,} reads of the terminal, {spent:.0f} s of CPU; {self.quits} times quit was asked for; "
            f"{self.apps} apps; {sum(self.broken.values())} broken")  # fmt: skip
        never = sorted(set(screen_names()) - set(self.seen))
        say(f"screens never open: {', '.join(never) or 'none'}")
        for kind, count in self.broken.most_common():
            say(f"  {count} × {kind}")
        for seconds, number, event in self.slowest:
            say(f"  {seconds:.2f} s: {number}: {event}")
        early = [size for number, size in self.memory.items() if number >= SETTLED]
        if early and early[-1] > 1.1 * early[0]:
            say(f"memory grew from {early[0] / 1e6:.0f} MB to {early[-1] / 1e6:.0f} MB")
            return 1
        return 1 if self.broken else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--bound", type=float, default=BOUND, help="seconds of CPU that an event may take")
    parser.add_argument("--report", type=int, default=1000, help="events between two lines about memory")
    parser.add_argument("--routes", action="store_true", help="first open each screen quietly, and check that it opens")
    parser.add_argument("--keep-going", action="store_true", help="go on after what broke, each kind of it told once")
    parser.add_argument("--verbose", action="store_true", help="print each event")
    options = parser.parse_args()
    onednn.limit_caches()  # as the command line does
    memory.map_large_blocks()  # as the app does
    with tempfile.TemporaryDirectory(prefix="tui-llm-soak-") as folder:
        home = Home(Path(folder).resolve())
        try:
            home.train()
            home.keep_pristine()
            import_screens()
            home.processes.replace()
            soak = Soak(options, home)
            count_locks(("tui_llm.tui",))
            simulate_time(soak.loop.clock, ("textual", "tui_llm.tui"))
            return soak.run()
        finally:
            home.close()
            os.chdir("/")


if __name__ == "__main__":
    os._exit(main())  # the engine's thread may be inside a call
