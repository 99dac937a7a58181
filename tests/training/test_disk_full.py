"""A full disk: one clear line, no partial files, older checkpoints intact, and training resumes once there is room."""

from __future__ import annotations

import errno
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.training.run_helpers import contents, leftovers, lines, losses, make, words, work
from tui_llm.common.errors import UserError
from tui_llm.training.run import jsonl
from tui_llm.training.run.run import Run


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk as the home; skips if mounting is not permitted."""
    place = tmp_path / "disk"

    def mounted(size: str) -> Path:
        again = "remount," if place.is_dir() else ""
        place.mkdir(exist_ok=True)
        options = ["mount", "-t", "tmpfs", "-o", f"{again}size={size}", "tmpfs", str(place)]
        try:
            done = subprocess.run(options, capture_output=True)
        except OSError:
            pytest.skip("there is no mount here")
        if done.returncode:
            pytest.skip("a small disk can't be mounted here")
        monkeypatch.setenv("TUI_LLM_HOME", str(place))
        return place

    yield mounted
    if place.is_dir() and os.path.ismount(place):
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def fill(disk: Path, leave: int) -> Path:
    """Writes a file that leaves `leave` bytes free."""
    room = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(b"x" * (room.f_bavail * room.f_frsize - leave))
    return filler


def test_disk_full_while_a_checkpoint_is_written(disk: Callable[[str], Path], text: Path) -> None:
    home = disk("4m")
    fields = {"steps": 20, "checkpoint_every": 10, "width": 32}
    unbroken, run = make("unbroken", text, **fields), make("run", text, **fields)
    assert work(unbroken) == 0
    assert work(run, ("half a line", 16)) == -9
    ((step, folder),) = run.checkpoints()
    before = contents(folder)
    assert step == 10
    for leave in (50_000, 150_000):  # too little for the weights; enough for them, but not for the optimizer's state
        filler = fill(home, leave)
        assert work(run) == 1
        status = run.status()
        assert status.state == "failed", status
        assert "checkpoint" in status.message and "No space left" in status.message and "then resume" in status.message
        assert "\n" not in status.message and status.message.count("free some space") == 1
        assert run.checkpoints() == [(10, folder)] and contents(folder) == before
        assert leftovers(home) == []
        filler.unlink()
    assert work(run) == 0 and run.status().state == "finished"
    assert losses(run) == losses(unbroken)
    assert contents(run.checkpoints()[-1][1]) == contents(unbroken.checkpoints()[-1][1])


def test_disk_full_while_a_metrics_line_is_written(disk: Callable[[str], Path], text: Path) -> None:
    home = disk("2m")
    fields = {"steps": 200, "checkpoint_every": 1000, "eval_every": 1000}
    unbroken, run = make("unbroken", text, **fields), make("run", text, **fields)
    assert work(unbroken) == 0
    run.write_control(paused=False)
    run.write_status("starting")
    (run.path / "lock").touch()
    filler = fill(home, 6 * 4096)  # room for pid, status, log, head scores, and some metrics
    assert work(run) == 1
    status = run.status()
    assert status.state == "failed" and "No space left" in status.message and "free some space" in status.message
    assert 0 < status.step < 200 and len(lines(run.metrics_path)) == status.step  # complete lines only
    assert leftovers(home) == []
    filler.unlink()
    assert work(run) == 0 and run.status().state == "finished"
    assert losses(run) == losses(unbroken)


def test_disk_full_while_the_corpus_is_tokenized(disk: Callable[[str], Path], tmp_path: Path) -> None:
    home = disk("600k")
    large = tmp_path / "large.txt"
    large.write_text(words(60_000))
    run = make("run", large, steps=3)
    assert work(run) == 1
    status = run.status()
    assert status.state == "failed" and "tokenized corpus" in status.message and "No space left" in status.message
    assert leftovers(home) == [] and [p.name for p in (home / "cache").rglob("*") if p.is_file()] == ["lock"]
    disk("8m")
    assert work(run) == 0 and run.status().state == "finished"


def test_a_disk_without_any_free_space(disk: Callable[[str], Path], text: Path) -> None:
    home = disk("1m")
    run = make("run", text, steps=3)
    run.write_status("starting")
    (run.path / "worker.log").touch()
    filler = fill(home, 0)
    assert work(run) == 1
    assert run.status().state == "failed" and "No space left" in run.status().message
    assert leftovers(home) == []
    filler.unlink()
    assert work(run) == 0


class _NearlyFull(io.FileIO):
    """A file that accepts only the first 10 bytes of a write, like a disk with that much room."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return super().write(data[:10])


def test_a_partial_line_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n')
    with _NearlyFull(path, "ab") as file, pytest.raises(OSError) as told:
        jsonl.append(file, {"step": 2, "loss": 1.5})
    assert told.value.errno == errno.ENOSPC
    assert path.read_bytes() == b'{"step": 1}\n'


def test_the_failure_overwrites_the_old_status_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    run.write_status("running", "a message that is longer than the one that follows")

    def full(path: Path, value: object) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr("tui_llm.training.run.run.write_json", full)
    with pytest.raises(UserError):
        run.write_status("running", "now")
    run.write_status("failed", "full")
    assert run.facts()["state"] == "failed" and run.facts()["message"] == "full"
