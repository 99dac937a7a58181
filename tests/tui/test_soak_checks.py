"""What the soak (`scripts/soak.py`) checks, and that it starts no real process."""

from __future__ import annotations

import ast
import asyncio
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from textual.app import App

from tui_llm.tui.keymap import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


def run(script: str) -> list[str]:
    """Returns what a script prints that can import the soak: it replaces streams, time and hooks of its process."""
    begin = f"import sys\nsys.path.insert(0, {str(SCRIPTS)!r})\n"
    done = subprocess.run([sys.executable, "-c", begin + script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.timeout(1800)  # seconds of CPU time, beside whatever else runs; the script itself ends at a hang
def test_each_route_arrives_at_its_screen_and_no_real_process_is_started() -> None:
    words = [str(SCRIPTS / "soak.py"), "--routes", "--events", "0"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5000:]
    arrived = {line.split()[1].rstrip(":") for line in done.stdout.splitlines() if line.startswith("route ")}
    assert arrived == {command.scope for command in COMMANDS}


@pytest.mark.usefixtures("scripts")
def test_each_scope_of_keys_has_a_route_and_a_screen_to_arrive_at() -> None:
    routes = module("soak_routes")
    assert set(routes.ROUTES) == set(routes.ARRIVES) == {command.scope for command in COMMANDS}


def calls(path: Path) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


@pytest.mark.usefixtures("scripts")
def test_each_module_of_the_app_that_starts_processes_is_replaced_and_each_worker_has_a_fake() -> None:
    processes, answers = module("soak_processes"), module("soak_answers")
    starters, workers = set(), set()
    for path in (*(ROOT / "tui_llm" / "tui").rglob("*.py"), *(ROOT / "tui_llm" / "training" / "plan").glob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for call in calls(path):
            called = ast.unparse(call.func)
            if called in ("subprocess.Popen", "subprocess.run", "subprocess.check_output", "os.fork", "os.posix_spawn"):
                starters.add(name)
            if called == "subprocesses.start" and isinstance(call.args[0], ast.Constant):
                workers.add(call.args[0].value)
    assert starters == set(processes.STARTERS)
    assert {*workers, "foreign"} == set(answers.ANSWERS)  # plan/foreign.py starts its own


def test_a_real_process_is_refused_and_recorded() -> None:
    said = run("""
import os, subprocess
from soak_processes import NotExpected, Starts
starts = Starts()
starts.watch()
for begin in (lambda: subprocess.run(["true"]), os.fork, lambda: os.posix_spawn("/bin/true", ["true"], {}), lambda: os.system("true")):
    try:
        print("started", begin())
    except NotExpected:
        pass
print(*[found.split()[4] for found in starts.found])
with starts.expected():
    print(subprocess.run(["true"]).returncode)
""")
    assert said == ["subprocess.Popen os.fork os.posix_spawn os.system", "0"]


def test_a_fake_writes_a_line_when_it_is_permitted_and_ends_when_it_is_killed() -> None:
    said = run("""
import json, threading
from soak_answers import AnswerProcess, Outputs
outputs, blocked, seen = Outputs(), threading.Semaphore(0), []
outputs.wake = blocked.release
process = AnswerProcess(outputs, lambda asked: [json.dumps(asked)] * 3, 0)
thread = threading.Thread(target=lambda: seen.extend(process.stdout))
process.stdin.write(b'{"step": 1}')
thread.start()
blocked.acquire()
print(outputs.blocked, outputs.permit())
blocked.acquire()
print(len(seen) or outputs.blocked, outputs.permit())
blocked.acquire()
print(outputs.permit(), process.poll())  # no more of them until the next event
process.kill()
thread.join()
print(len(seen), process.wait(), outputs.blocked)
""")
    assert said == ["1 True", "1 True", "False None", "2 -9 0"]


def test_a_thread_that_waits_for_another_ones_line_is_not_taken_for_one_that_works() -> None:
    """As the replay of a step, which waits for the thread that reads the step before it."""
    said = run("""
import threading
from soak_answers import AnswerProcess, Outputs
from soak_clock import CountedLock, SettledLoop
outputs, lock, seen = Outputs(), CountedLock(), []
loop = SettledLoop(lambda: False, outputs.permit, lambda: outputs.blocked + CountedLock.blocked(), 30.0)
outputs.wake = lambda: loop.call_soon_threadsafe(lambda: None)
older, newer = (AnswerProcess(outputs, lambda asked: [], 0, text=True) for _ in range(2))
older._lines, newer._lines = ["1", "2", "3"], ["4"]
def read(process):
    with lock:
        seen.extend(map(str.strip, process.stdout))
async def main():
    loop.run_in_executor(None, read, older)
    await loop.settle(0)
    loop.run_in_executor(None, read, newer)
    await loop.settle(0)
    print(*seen, "|", outputs.blocked, CountedLock.blocked())
    for _ in range(3):
        outputs.refill()
        await loop.settle(1)
        print(*seen, "|", outputs.blocked, CountedLock.blocked())
loop.run_until_complete(main())
""")
    assert said == ["1 2 | 1 1", "1 2 3 | 1 0", "1 2 3 4 | 0 0", "1 2 3 4 | 0 0"]


def test_what_is_found_while_the_app_ends_breaks_the_soak() -> None:
    said = run("""
import argparse, asyncio, logging
from types import SimpleNamespace
import soak
from soak_clock import Stuck
from soak_processes import Processes

def ended(change):
    made = soak.Soak(argparse.Namespace(bound=30.0, seed=1), SimpleNamespace(processes=Processes()))
    app = SimpleNamespace(screen_stack=[], _exception=None)
    made.app, made.driver = app, SimpleNamespace(leaks=[])
    made.loop._busy = lambda: False  # there is no engine

    async def end():
        async def live():
            await leave.wait()
        leave = asyncio.Event()
        def exit():
            change(made)
            leave.set()
        app.exit = exit
        try:
            await made._stop(asyncio.get_running_loop().create_task(live()))
        except soak.Broken as error:
            return str(error)
        return "nothing"
    return made.loop.run_until_complete(end())

def slow(made):
    made.loop._began -= 31  # so many seconds of CPU
def stuck(made):
    made.faults.install(made.loop)
    def callback():
        raise Stuck("in one handler")
    made.loop.call_soon(callback)
print(ended(lambda made: None))
print(ended(lambda made: made.faults.found.append("log: WARNING")))
print(ended(lambda made: made.driver.leaks.append("ESC")))
print(ended(lambda made: made.home.processes.starts.found.append("a process")))
print(ended(lambda made: setattr(made.app, "_exception", ValueError("x"))))
print("CPU for one event" in ended(slow))
print("in one handler" in ended(stuck))
""")
    assert said == [
        "nothing",
        "log: WARNING",
        "reached the terminal: ESC",
        "a process",
        "the app ended: ValueError('x')",
        "True",
        "True",
    ]


@pytest.mark.usefixtures("scripts")
def test_no_text_to_type_is_no_read_of_the_terminal() -> None:
    """A read without bytes would be a closed terminal. The random keys are sometimes none."""

    async def feed() -> None:
        module("soak_terminal").SoakDriver(App[None]()).feed("")

    asyncio.run(feed())
