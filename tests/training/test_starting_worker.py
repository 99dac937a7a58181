"""A worker that imports torch and does not hold its run yet: nothing is changed behind it, and it can be stopped."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import HANG
from tests.training.run_helpers import make, wait, words
from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.training.plan import climb, launch, processes
from tui_llm.training.plan import ladder as ladders
from tui_llm.training.plan.ladder import Ladder
from tui_llm.training.run import live, run_lock, status
from tui_llm.training.run.rename import rename
from tui_llm.training.run.run import Run
from tui_llm.tui.runs import run_actions

WORKER = """
import sys
from pathlib import Path
open("importing", "w").close()
open("go", "rb").read()  # as a worker waits while torch is imported
from tui_llm.training.run.run import Run
run = Run(Path(sys.argv[1]))
with run.held(5):
    run.write_status("stopped" if run.control().get("stop") else "finished")
"""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


@pytest.fixture(autouse=True)
def workers(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers are `WORKER`; those that a test leaves end."""
    monkeypatch.setattr(processes, "command", lambda path, _nproc: [sys.executable, "-c", WORKER, str(path)])
    yield
    for _, child in launch._children:
        child.kill()
        child.wait()
    launch.reap()


def importing(run: Run) -> Run:
    """Starts a worker that imports until `go`."""
    os.mkfifo(run.path / "go")
    launch.start(run)
    wait(lambda: (run.path / "importing").exists())
    return run


def go(run: Run) -> None:
    (run.path / "go").write_bytes(b"")


def test_a_refused_resume_changes_nothing(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = importing(make("run", text))
    before = (run.path / "config.json").read_bytes()
    for more in (["--steps", "60"], ["--batch-size", "2"], ["--pin", "the cat"], ["--tensorboard"], ["--no-start"]):
        assert main(["train", "--resume", "--run", "run", *more]) == 2
        assert "run is being trained; stop it first" in capsys.readouterr().err
    with pytest.raises(UserError, match="stop it first"):
        run_actions._continue(run, 60)
    with pytest.raises(UserError, match="stop it first"):
        launch.change_batch_size(run, 2, 2)
    assert (run.path / "config.json").read_bytes() == before and not run.pins_path.exists()
    go(run)
    wait(lambda: run.status().state == "finished")


def test_a_worker_that_imports_for_long_is_starting_still(
    text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "STARTING_GRACE", 0.0)  # as if it had been started long ago
    run = importing(make("run", text))
    assert run.status().state == "starting" and run.taken() and not run.alive()
    with pytest.raises(UserError, match="stop it first"):
        run.delete()
    with pytest.raises(UserError, match="stop it first"):
        rename(run, "other")
    assert main(["runs", "delete", "run", "--yes"]) == 2 and "stop it first" in capsys.readouterr().err
    launch.save(run)
    assert launch.show_batch(run) and any("is still starting" in line for line in live.farewell())
    launch.stop(run)
    go(run)
    wait(lambda: run.status().state == "stopped" and not run.alive())

    # One that is killed while it imports has died at once, and is recorded as failed by the process that started it.
    (run.path / "importing").unlink()
    launch.start(run)
    _, child = launch._children[-1]
    wait(lambda: (run.path / "importing").exists())
    child.kill()
    child.wait()
    assert run.status().state == "died" and not run.taken()
    launch.reap()
    assert run.status().state == "failed"


def test_a_worker_of_another_process_is_not_recorded_as_failed(text: Path) -> None:
    run = importing(make("run", text))
    _, child = launch._children[-1]
    run.write_control(starting=os.getppid())  # another process has started one meanwhile
    child.kill()
    child.wait()
    launch.reap()
    assert run.facts()["state"] == "starting" and launch._children == []


def test_stop_waits_for_a_starting_worker(
    text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = importing(make("run", text))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        if not slept:
            go(run)
        slept.append(seconds)
        time.sleep(seconds)

    monkeypatch.setattr(launch, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    assert main(["stop", "run"]) == 0
    assert "run run: stopped" in capsys.readouterr().out and slept
    run.write_control(stop=True, paused=True)  # as if that worker had been killed
    assert main(["train", "--resume", "--run", "run", "--steps", "60", "--no-start"]) == 0  # is not refused
    assert run.control()["stop"] is False and run.control()["paused"] is False

    # After too long a wait it says so.
    (run.path / "importing").unlink()
    launch.start(run)
    monkeypatch.setattr(launch, "wait_until_gone", lambda run: False)
    assert main(["stop", "run"]) == 0
    assert "is still starting" in capsys.readouterr().out
    go(run)
    wait(lambda: run.status().state == "stopped")


def test_a_worker_that_dies_while_it_starts_is_no_success(
    text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dead(run: Run) -> bool:
        wait(lambda: not launch.started_here(run))
        return False

    make("run", text)
    dies = WORKER.partition("open(")[0] + (
        "import os\nfrom tui_llm.training.run.run import Run\n"
        "Run(Path(sys.argv[1])).write_status('running')\nos.kill(os.getpid(), 9)\n"
    )
    monkeypatch.setattr(processes, "command", lambda path, _nproc: [sys.executable, "-c", dies, str(path)])
    monkeypatch.setattr(launch, "wait_until_held", dead)
    assert main(["train", "--resume", "--run", "run", "--detach"]) == 2
    assert "tui-llm: run run died: its worker ended" in capsys.readouterr().err


def test_a_ladder_follows_the_worker_that_is_starting(text: Path) -> None:
    given = {"layers": "1", "heads": "2", "width": "16", "block_size": "16", "batch_size": "4", "sample_tokens": "2"}
    ladder = Ladder("up", (str(text),), "toy", "steps", 20.0, ("gpt2",), given, "cpu")
    ladders.keep(ladder)
    run = importing(ladders.prepare(ladder, 0))
    (_, child), *_ = launch._children

    def follow(run: Run, **_more: Any) -> int:
        assert run.starting() == child.pid
        assert climb.stop(ladder) and run.control()["stop"]
        go(run)
        wait(lambda: run.status().state == "stopped")
        return 0

    assert climb.climb(ladder, lambda *_: None, follow) == 0
    assert launch.wait_until_gone(run, HANG)


def test_on_windows_no_signal_looks_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run_lock.os, "kill", lambda *_: pytest.fail("signal 0 is Ctrl+C there"))
        patch.setattr(run_lock.os, "name", "nt")
        found = run_lock.exists(1)
    assert found


def test_without_proc_a_worker_that_has_ended_is_not_starting(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: its pid is looked for by a signal."""
    found = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: "/proc/" not in str(path) and found(path))
    run = importing(make("run", text))
    _, child = launch._children[-1]
    assert run.status().state == "starting" and run.starting() == child.pid and run.taken()
    child.kill()
    child.wait()
    assert run.status().state == "died" and run.starting() is None and not run.taken()  # at once, not after a minute
    launch.reap()
    assert run.status().state == "failed"
