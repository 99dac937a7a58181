"""At most one worker per run, whatever is deleted or moved by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

from tests.training.run_helpers import begin, losses, make, wait, words, work
from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import NotRegular
from tui_llm.training.plan import launch
from tui_llm.training.run.run import Run
from tui_llm.training.run.run_lock import RunLock

LONG = {"steps": 1_000_000, "checkpoint_every": 1_000_000, "eval_every": 1_000_000}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def replace(path: Path) -> None:
    path.unlink()
    path.touch()


@pytest.mark.parametrize("damage", [Path.unlink, replace])
def test_a_worker_whose_lock_is_deleted_saves_and_exits(text: Path, damage: object) -> None:
    run = make("run", text, **LONG)
    worker = begin(run)
    wait(lambda: run.status().step > 3)
    damage(run.lock_path)  # type: ignore[operator]
    worker.join()
    status = run.status()
    assert worker.exitcode == 1 and status.state == "failed" and "was deleted or replaced" in status.message
    assert f"saved at step {status.step:,}" in status.message and "\n" not in status.message
    assert [step for step, _ in run.checkpoints()] == [status.step] == [losses(run)[-1][0]]
    assert "saving, then exiting" in run.log_path.read_text() and not run.alive()
    # Its checkpoint equals that of an undisturbed run.
    ended = make("ended", text, **{**LONG, "steps": 1_000_000})
    other = begin(ended)
    wait(lambda: ended.status().step > status.step)
    other.kill()
    other.join()
    assert losses(ended)[: status.step] == losses(run)


def test_no_second_worker_starts_after_the_first_ones_lock_was_deleted(text: Path) -> None:
    run = make("run", text, **LONG)
    worker = begin(run)
    wait(lambda: run.status().step > 3)
    os.kill(worker.pid or 0, 19)  # SIGSTOP, so that it can't notice
    wait(lambda: stopped(worker.pid))
    run.lock_path.unlink()
    assert run.alive() and run.status().alive
    with pytest.raises(UserError, match="being trained already"):
        launch.start(run)
    with pytest.raises(UserError, match="stop it first"):
        run.delete()
    before = contents_but_log(run)
    second = begin(run, patience=0.2)
    second.join()
    assert second.exitcode == 3 and "is being trained by another process" in run.log_path.read_text()
    assert contents_but_log(run) == before
    os.kill(worker.pid or 0, 18)
    worker.join()
    assert worker.exitcode == 1 and "was deleted or replaced" in run.status().message
    steps = [row[0] for row in losses(run)]
    assert steps == list(range(1, len(steps) + 1))


def stopped(pid: int | None) -> bool:
    """Whether every thread has stopped: each does so only when it next gets a core, and writes until then."""
    try:
        return {
            file.read_text().rpartition(")")[2].split()[0] for file in Path(f"/proc/{pid}/task").glob("*/stat")
        } == {"T"}
    except OSError:  # one has just ended
        return False


def contents_but_log(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path.name not in ("worker.log", "lock")}


def test_where_folders_cant_be_locked_a_worker_that_lost_its_lock_writes_nothing_more(text: Path) -> None:
    run = make("run", text, **LONG)
    worker = begin(run, ("no locks of folders", 1))
    wait(lambda: run.status().step > 3)
    run.lock_path.unlink()
    worker.join()
    assert worker.exitcode == 3 and "nothing more is written" in run.log_path.read_text()
    assert run.checkpoints() == [] and run.status().state == "died"
    assert work(run, ("half a line", 3)) == -9  # it can be started again


def test_where_folders_cant_be_locked_the_process_that_wrote_its_pid_counts(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "lock_folder", lambda folder, shared=False: None)
    run = make("run", text)
    worker = subprocess.Popen([sys.executable, "-c", "input()", str(run.path)], stdin=subprocess.PIPE)
    (run.path / "pid").write_text(str(worker.pid))
    wait(lambda: b"run" in Path(f"/proc/{worker.pid}/cmdline").read_bytes())
    assert run.alive()
    with pytest.raises(Timeout):
        RunLock(run.path).acquire()
    with pytest.raises(UserError, match="being trained already"):
        launch.start(run)
    worker.communicate()
    assert not run.alive()
    with run.held(1) as lock:
        assert run.alive() and not lock.lost and not lock.alone


def test_a_lock_that_is_not_a_file_and_a_run_moved_by_hand(text: Path) -> None:
    run = make("run", text)
    os.mkfifo(run.lock_path)
    with pytest.raises(NotRegular):
        RunLock(run.path).acquire()
    assert work(run) == 1 and "not a regular file" in run.log_path.read_text()
    run.lock_path.unlink()
    with run.held(1) as lock:
        assert not lock.lost and lock.alone
        run.path.rename(run.path.with_name("moved"))
        assert lock.lost and not lock.alone
    assert not Run(run.path.with_name("moved")).alive()


def test_a_run_that_cannot_be_created_leaves_no_files(text: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(run: Run, config: object) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(Run, "write_config", full)
    with pytest.raises(UserError, match="disk is full"):
        make("run", text)
    assert list((home / "runs").iterdir()) == []
    (home / "runs" / "run").mkdir()  # created by an earlier version
    monkeypatch.undo()
    monkeypatch.setenv("TUI_LLM_HOME", str(home))
    assert make("run", text).config().preset == "toy"
    (home / "runs" / "other").mkdir()
    (home / "runs" / "other" / "mine").touch()
    with pytest.raises(UserError, match="is not a run"):
        make("other", text)
