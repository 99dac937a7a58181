"""Real workers: detached, stopped, paused, orphaned, killed, found again."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import HANG
from tests.training.run_helpers import TINY, begin, leftovers, losses, make, wait, words, work
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.hub import lookup
from tui_llm.training.plan import launch, processes
from tui_llm.training.run import run_lock
from tui_llm.training.run.run import Run, check_name

LONG = {"steps": 10_000_000, "checkpoint_every": 1_000_000, "eval_every": 1_000_000}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


@pytest.fixture(autouse=True)
def nothing_stays(home: Path) -> Iterator[None]:
    """Ends the workers that a test leaves running."""
    yield
    for folder in (home / "runs").glob("*"):
        pid = launch._worker_pid(Run(folder))
        if Run(folder).alive() and pid:
            os.kill(pid, signal.SIGKILL)
    for _, child in launch._children:  # workers that have not acquired their lock yet
        child.kill()
    launch.reap()


def pid_of(run: Run) -> int:
    return int((run.path / "pid").read_text())


def step(run: Run) -> int:
    return run.status().step


def test_a_run_outlives_its_terminal_and_its_starter_and_is_found_again(
    text: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `tui-llm train` in a terminal that hangs up.
    monkeypatch.setenv("TUI_LLM_NICE", "1")
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "tui_llm", "train", str(text), "--run", "long", "--preset", "toy", "--tokenizer", "byte",
               "--layers", "1", "--heads", "2", "--width", "16", "--block-size", "16", "--batch-size", "4", "--device", "cpu",
               "--steps", "10000000", "--checkpoint-every", "1000000", "--eval-every", "1000000"]  # fmt: skip
    take_terminal = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    starter = subprocess.Popen([sys.executable, "-c", take_terminal, *command], stdin=child, stdout=child, stderr=child)
    os.close(child)
    run = Run(home / "runs" / "long")
    wait(lambda: step(run) > 0)
    assert os.getpriority(os.PRIO_PROCESS, pid_of(run)) == 1
    session = Path(f"/proc/{pid_of(run)}/autogroup")
    assert not session.exists() or session.read_text().endswith(" nice 1\n")
    os.close(parent)  # the kernel sends SIGHUP to the terminal's processes
    assert starter.wait() != 0

    seen = step(run)
    wait(lambda: step(run) > seen + 5)
    assert run.alive() and run.status().state == "running"
    worker = pid_of(run)
    assert os.getsid(worker) == worker != os.getsid(0)
    os.kill(worker, signal.SIGHUP)
    seen = step(run)
    wait(lambda: step(run) > seen + 5)

    # A second worker is refused, however it is started, and changes nothing.
    with pytest.raises(UserError, match="being trained already"):
        launch.start(run)
    second = begin(run, patience=0.2)
    second.join()
    assert second.exitcode == 3
    with pytest.raises(UserError, match="stop it first"):
        run.delete()
    with pytest.raises(UserError, match="already"):
        make("long", text)
    assert run.alive() and run.status().state == "running" and pid_of(run) == worker

    # Pause saves and stops the steps; unpause; pause and stop.
    launch.pause(run)
    wait(lambda: run.status().state == "paused")
    paused = step(run)
    assert run.checkpoints()[-1][0] == paused and lookup.find("long").step == paused
    launch.unpause(run)
    wait(lambda: step(run) > paused)
    assert run.status().state == "running"
    launch.pause(run)
    wait(lambda: run.status().state == "paused")
    paused = step(run)
    launch.stop(run)
    assert launch.wait_until_gone(run, HANG)
    assert run.status().state == "stopped" and f"{paused:,}" in run.status().message
    assert step(run) == run.checkpoints()[-1][0] == paused
    with pytest.raises(UserError, match="not being trained"):
        launch.stop(run)

    # Once resumed, it is no longer paused. SIGTERM saves at the current step.
    with monkeypatch.context() as patch:
        patch.setattr("tui_llm.training.run.status.STARTING_GRACE", 0.0)  # as if it started after the grace period
        launch.start(run)
        assert launch.wait_until_held(run, HANG)
    wait(lambda: step(run) > paused)
    launch.stop(run)
    assert launch.wait_until_gone(run, HANG)
    assert run.status().state == "stopped" and step(run) == run.checkpoints()[-1][0] > paused
    assert [row[0] for row in losses(run)] == list(range(1, step(run) + 1))
    assert leftovers(run.path) == []


def test_while_a_worker_is_starting_no_other_is_started_and_a_stop_stays(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make("run", text, **LONG)
    importing = (
        "import sys; sys.stdin.close(); open('importing', 'w').close(); open('go', 'rb').read(); exec(sys.argv[1])"
    )
    real = processes.command(run.path, 1)
    os.mkfifo(run.path / "go")
    # The worker waits, as it does while torch is imported, until the test opens `go`.
    waits = [sys.executable, "-c", importing, f"import os; os.execv({real[0]!r}, {real!r})", str(run.path)]
    monkeypatch.setattr(processes, "command", lambda *_: waits)
    launch.start(run)
    wait(lambda: (run.path / "importing").exists())
    assert not run.alive()
    with pytest.raises(UserError, match=r"being started already, by process \d+"):
        launch.start(run)
    launch.stop(run)
    with pytest.raises(UserError, match="being started already"):
        launch.resume(run)
    (run.path / "go").write_bytes(b"")
    wait(lambda: run.status().state == "stopped")
    assert launch.wait_until_gone(run, HANG)
    assert run.checkpoints() == [] and step(run) == 0

    # One that was killed meanwhile is in nobody's way.
    launch.start(run)
    _, child = launch._children[-1]
    wait(lambda: run_lock.is_worker(child.pid, run.path))
    child.kill()
    child.wait()
    launch.start(run)
    launch.stop(run)
    (run.path / "go").write_bytes(b"")
    wait(lambda: run.status().state == "stopped")


def test_a_worker_that_is_reaped_late_is_not_taken_for_the_one_that_resumes(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make("run", text)
    before = subprocess.Popen([sys.executable, "-c", ""])
    before.wait()
    now = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setattr(launch, "_children", [(run, before), (Run(run.path), now)])
    run.write_status("starting")
    launch.reap()
    assert run.status().state == "starting"
    now.communicate(b"\n")
    launch.reap()
    assert run.status().state == "failed" and launch._children == []


def test_a_worker_that_dies_while_the_one_before_it_ends_has_failed(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker releases its lock, so that the run can be resumed, and then its interpreter shuts down."""
    run = make("run", text)
    before = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    now = subprocess.Popen([sys.executable, "-c", ""])
    now.wait()
    monkeypatch.setattr(launch, "_children", [(run, before), (Run(run.path), now)])
    run.write_status("starting")
    launch.reap()
    assert run.status().state == "failed" and launch._children == [(run, before)]
    before.communicate(b"\n")
    launch.reap()
    assert launch._children == []


def test_stopping_and_resuming_changes_no_number(text: Path) -> None:
    # Enough steps for the signal to arrive before the end; if it does not, the test still passes.
    # (`terminate` suppresses the error of a process that has ended; `os.kill` does not.)
    fields = {"steps": 150, "checkpoint_every": 1000, "eval_every": 100}
    unbroken, stopped = make("unbroken", text, **fields), make("stopped", text, **fields)
    assert work(unbroken) == 0
    worker = begin(stopped)
    wait(lambda: step(stopped) > 3)
    worker.terminate()
    worker.join()
    assert worker.exitcode == 0
    assert stopped.status().state in ("stopped", "finished") and stopped.checkpoints()[-1][0] == step(stopped)
    assert work(stopped) == 0
    assert losses(stopped) == losses(unbroken)


def test_a_stop_before_the_first_step_is_obeyed(text: Path) -> None:
    run = make("run", text, **LONG)
    run.write_control(stop=True)
    assert work(run) == 0
    assert run.status().state == "stopped" and run.checkpoints() == [] and losses(run) == []
    assert run.control()["stop"] is False  # the next worker trains, even one that torchrun starts
    run.write_control(paused=True)
    worker = begin(run)
    wait(lambda: run.status().state == "paused")
    run.write_control(stop=True)
    worker.join()
    assert run.status().state == "stopped" and run.checkpoints() == []
    assert run.control()["stop"] is False and run.control()["paused"] is False
    with pytest.raises(UserError, match="no checkpoint yet"):
        lookup.find("run")


def test_a_killed_worker_is_recognized_even_if_its_pid_is_reused(text: Path) -> None:
    run = make("run", text, **LONG)
    worker = begin(run)
    wait(lambda: step(run) > 0)
    worker.kill()
    worker.join()
    assert not run.alive() and run.status().state == "died" and "resume" in run.status().message

    # The pid in the file now belongs to another process, which must not receive the worker's signal.
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (run.path / "pid").write_text(str(bystander.pid))
    with run.held(1):
        assert run.alive()
        launch.stop(run)
        assert run.control()["stop"] is True
    assert bystander.poll() is None
    bystander.communicate(b"\n")
    assert bystander.returncode == 0


PROBE = """
import sys
from pathlib import Path
from tui_llm.training.run.run import Run
run = Run(Path(sys.argv[1]))
print(sum(run.alive() for _ in range(3000)), flush=True)
while not run.alive():
    pass
"""


def test_readers_of_the_lock_do_not_block_each_other_or_a_worker(text: Path) -> None:
    run = make("run", text)
    with run.held(1):
        pass  # creates the lock file
    looking = [
        subprocess.Popen([sys.executable, "-c", PROBE, str(run.path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in looking:
        assert process.stdout is not None and process.stdout.readline() == "0\n"
    with run.held(1):  # while four threads check it continuously
        assert [process.wait() for process in looking] == [0, 0, 0, 0]
    for process in looking:
        assert process.stdout is not None
        process.stdout.close()
    assert not run.alive()


@pytest.mark.parametrize(
    ("value", "niceness"), [("7", 7), ("99", 19), ("", None), ("-3", None), ("²", None), ("x", None)]
)
def test_a_niceness_that_is_no_number_is_ignored(
    value: str, niceness: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUI_LLM_NICE", value)
    assert processes._niceness() == niceness


def test_a_worker_that_cannot_start_is_reported(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make("run", text)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    launch.start(run)
    assert not launch.wait_until_held(run, HANG)
    assert run.status().state == "failed" and "exit status 1" in run.status().message
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(UserError, match="can't start the worker"):
        launch.start(run)
    assert run.status().state == "failed"
    assert launch.create("run", [str(text)], TINY, preset="toy").status().state == "new"  # the name can be used again


def test_the_worker_finds_the_package_from_anywhere(
    text: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    found = subprocess.run(
        [sys.executable, "-c", "import tui_llm; print(tui_llm.__file__)"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": processes.python_path()}, capture_output=True, text=True,
    )  # fmt: skip
    import tui_llm

    assert found.stdout.strip() == tui_llm.__file__
    monkeypatch.setenv("PYTHONPATH", f"some{os.pathsep}")
    assert str(Path("some").absolute()) in processes.python_path().split(
        os.pathsep
    ) and "" not in processes.python_path().split(os.pathsep)


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "x" * 65, ".hidden", "-x", "a b", "a\x1b[0m", "ä", "a\n", "[red]x"]
)
def test_invalid_run_names_are_refused(name: str, text: Path) -> None:
    with pytest.raises(UserError, match="can't name a run"):
        make(name, text)
    with pytest.raises(UserError, match="can't name a run"):
        check_name(name)
    assert not paths.runs_dir().exists()


def test_an_unusable_text_creates_no_run(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"PK\0\1")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    (tmp_path / "hollow").mkdir()
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nothing")
    for place in (
        "empty.txt",
        "binary.txt",
        "latin.txt",
        "hollow",
        "gone.txt",
        "x" * 5000,
        "nul\0",
        "none\x1b[31m.txt",
    ):
        with pytest.raises(UserError) as told:
            make("run", tmp_path / place)
        assert "\n" not in str(told.value), place
    for place in ("~no-such-user-here/x", "/dev/null"):
        with pytest.raises(UserError):
            launch.create("run", [place], TINY, preset="toy")
    with pytest.raises(UserError, match="name a text"):
        launch.create("run", [], TINY, preset="toy")
    assert not paths.runs_dir().exists()


def test_a_file_with_a_hostile_name_can_be_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"texts\xff")
    folder.mkdir()
    text = folder / "\x1b[31m[red]\nä.txt"
    text.write_text(words(800))
    run = make("run", folder, steps=2)
    assert run.config().corpus == (str(folder),)
    assert work(run) == 0 and run.status().state == "finished"
    text.rename(folder / "\x1b[31m[red].bin")
    assert work(run) == 1
    assert "no text files" in run.status().message
    assert b"\x1b" not in run.log_path.read_bytes()
    assert json.loads((run.path / "status.json").read_bytes())["state"] == "failed"
