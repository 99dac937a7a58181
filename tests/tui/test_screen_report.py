"""A failed test of the app reports what was on the screen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

FAILING = """
import asyncio
import signal
import time
import pytest
from helpers import drawn, make_app, until

async def test_a_wait_that_never_ends():
    app = make_app(prompt="a prompt that hangs")
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: any("a prompt that hangs" in line for line in drawn(app)))
        signal.raise_signal(signal.SIGALRM)  # as at the end of its time
        await until(pilot, lambda: False)

@pytest.fixture
def whose_end_hangs():
    yield
    signal.raise_signal(signal.SIGALRM)

@pytest.mark.timeout(1, func_only=True)
async def test_whose_timeout_interrupts_another_task(whose_end_hangs):
    async def busy():
        while True:
            until = time.monotonic() + 0.1
            while time.monotonic() < until:
                pass
            await asyncio.sleep(0)
    task = asyncio.create_task(busy())
    await asyncio.Event().wait()

async def test_an_assertion():
    app = make_app(prompt="a prompt that fails")
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("f1")
        assert False

async def test_that_passes():
    async with make_app(prompt="a prompt that passes").run_test(size=(100, 30)) as pilot:
        await pilot.pause()

def test_without_an_app():
    assert False
"""


def test_failures_and_hangs_say_what_was_on_the_screen(tmp_path: Path) -> None:
    path = tmp_path / "test_failing.py"
    path.write_text(FAILING)
    settings = ("-p", "no:cacheprovider", "-c", REPOSITORY / "pyproject.toml", "--rootdir", tmp_path, "--color", "no")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", *settings, "-p", "tests.conftest", path],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests" / "tui")))},
        capture_output=True,
        text=True,
    )
    assert "4 failed, 1 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "Failed: Timeout (>600" in done.stdout and "Failed: Timeout (>1" in done.stdout
    assert done.stdout.count("- On the screen -") == 2
    assert "LabScreen, 100×30" in done.stdout and "a prompt that hangs" in done.stdout
    assert "HelpScreen, 100×30" in done.stdout
    assert "a prompt that passes" not in done.stdout.partition("test_an_assertion")[0].partition("On the screen")[2]
