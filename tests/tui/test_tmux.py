"""A run started in tmux survives when tmux is killed, and is found again; with the real tmux, on its own socket."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.run_helpers import lines, make, wait, words
from tui_llm.training.run.run import Run

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux here")

TESTS = Path(__file__).parent
APP = """
import sys
sys.path.insert(0, {tests!r})
from fake_engine import FakeEngine
from tui_llm.tui.app import LabApp
from tui_llm.tui.terminal import run_app
raise SystemExit(run_app(LabApp(FakeEngine, prompt="x")))
"""


class Tmux:
    """A separate tmux server; a window named `w` shows the app."""

    def __init__(self, home: Path) -> None:
        self.socket = f"tui-llm-{uuid.uuid4().hex[:8]}"
        self.home = home

    def __call__(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-L", self.socket, "-f", os.devnull, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def app(self, window: str, size: str = "120x40") -> None:
        program = APP.format(tests=str(TESTS))
        variables = {"TUI_LLM_HOME": str(self.home), "PYTHONPATH": str(TESTS.parents[1]), "OMP_NUM_THREADS": "1"}
        shell = shlex.join(["env", *(f"{k}={v}" for k, v in variables.items()), sys.executable, "-c", program])
        columns, rows = size.split("x")
        self("new-session", "-d", "-s", window, "-x", columns, "-y", rows, f"exec {shell}")
        self.shows(window, "Prompt")  # it handles keys now
        self("send-keys", "-t", window, "Escape")
        self.shows(window, "? help")  # wait before the next key: both at once would be Alt and a number
        self("send-keys", "-t", window, "4")

    def screen(self, window: str) -> str:
        return self("capture-pane", "-p", "-t", window)

    def shows(self, window: str, text: str) -> None:
        while text not in self.screen(window):
            time.sleep(0.05)

    def end(self) -> None:
        subprocess.run(["tmux", "-L", self.socket, "kill-server"], capture_output=True)


@pytest.fixture
def tmux(home: Path) -> Iterator[Tmux]:
    made = Tmux(home)
    yield made
    made.end()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    text = tmp_path / "text.txt"
    text.write_text(words(2000))
    made = make("tmuxed", text, steps=10_000_000, checkpoint_every=1_000_000, eval_every=1_000_000)
    yield made
    if made.alive():
        os.kill(worker(made), signal.SIGKILL)
    wait(lambda: not made.alive())


def worker(run: Run) -> int:
    return int((run.path / "pid").read_text())


def further(run: Run, steps: int = 20) -> None:
    seen = run.status().step
    wait(lambda: run.status().step > seen + steps)


def test_a_run_started_in_tmux_outlives_its_server_and_the_next_app_shows_it_without_a_gap(
    tmux: Tmux, run: Run
) -> None:
    tmux.app("first")
    tmux.shows("first", "not started")
    tmux("send-keys", "-t", "first", "e")
    wait(lambda: run.status().state == "running")
    pid = worker(run)
    tmux.shows("first", "running")
    further(run)
    tmux.end()

    further(run)
    assert run.alive() and worker(run) == pid and run.status().state == "running"
    again = Tmux(tmux.home)
    try:
        again.app("second", "80x24")
        again.shows("second", "tmuxed")
        again.shows("second", "running")

        # Two apps watch it: a request from one is seen in both; closing one does not affect the other or the run.
        again.app("third")
        again.shows("third", "running")
        again("send-keys", "-t", "third", "p")
        for window in ("second", "third"):
            again.shows(window, "paused")
        assert run.status().state == "paused"
        again("send-keys", "-t", "second", "p")
        for window in ("second", "third"):
            again.shows(window, "running")
        # A second worker is refused, whichever app starts it.
        again("send-keys", "-t", "third", "e")
        hung_up = int(again("display-message", "-p", "-t", "third", "#{pane_pid}"))
        os.kill(hung_up, signal.SIGHUP)
        while "third" in again("list-sessions", "-F", "#{session_name}").split():
            time.sleep(0.05)
        further(run)
        again.shows("second", "running")
        assert run.alive() and worker(run) == pid
    finally:
        again.end()
    further(run)
    os.kill(pid, signal.SIGTERM)
    wait(lambda: not run.alive())
    assert run.status().state == "stopped"
    assert [row["step"] for row in lines(run.metrics_path)] == list(range(1, run.status().step + 1))
