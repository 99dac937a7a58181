"""Reading run directories: complete, growing, damaged, truncated."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.training.run_helpers import TINY
from tui_llm.common import files, storage
from tui_llm.common.errors import UserError
from tui_llm.training.run.config import RunConfig, parse_config
from tui_llm.training.run.metrics import MetricsTail
from tui_llm.training.run.run import Run, find, runs
from tui_llm.training.run.settings import from_fields


def line(step: int, **more: object) -> bytes:
    return (
        json.dumps({"step": step, "loss": 1.0, "lr": 0.1, "grad_norm": 1.0, "tokens_per_second": 9.0, **more}).encode()
        + b"\n"
    )


@pytest.fixture
def run(home: Path) -> Run:
    made = Run(home / "runs" / "one")
    made.write_config(RunConfig(("/a",), "toy", "cpu", TINY))
    return made


def test_a_config_survives_a_round_trip(run: Run) -> None:
    assert run.config() == RunConfig(("/a",), "toy", "cpu", TINY)
    assert find("one").path == run.path and [r.name for r in runs()] == ["one"]
    with pytest.raises(UserError, match="the runs are: one"):
        find("two")


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b'{"state": 3, "time": "x", "vocabulary": 1e999}',
        b"[" * 100_000,
    ],
)
def test_junk_in_a_run_directory_never_breaks_reading_it(run: Run, junk: bytes) -> None:
    for name in ("status.json", "control.json", "metrics.jsonl", "samples.jsonl", "pid", "lock"):
        (run.path / name).write_bytes(junk + b"\n" if name.endswith("l") else junk)
    status = run.status()
    assert status.step == 0 and status.steps == TINY.steps and not status.alive
    assert run.control() == ({} if not junk.startswith(b"{") or junk == b"{" else json.loads(junk))
    assert run.last_metric() is None and run.samples() == [] and MetricsTail(run.metrics_path).new() == []
    assert run.checkpoints() == [] and not run.alive() and run.size() > 0
    (run.path / "config.json").write_bytes(junk)
    assert run.status().state == "failed" and "\n" not in run.status().message
    run.delete()
    assert list(runs()) == []


class AtCall:
    """Ends the process at the disk operation number `last`; without one, counts them."""

    def __init__(self, last: int | None = None) -> None:
        self.calls, self.last = 0, last

    def step(self, call: str, path: str, source: str = "") -> None:
        if self.calls == self.last:
            os._exit(9)
        self.calls += 1


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_deletion_that_is_killed_leaves_no_part_of_a_run_under_its_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inside(folder: Path) -> set[Path]:
        return {path.relative_to(folder) for path in folder.rglob("*")}

    kept = tmp_path / "kept"
    shutil.copytree(run.path, kept)
    counted = AtCall()
    with monkeypatch.context() as patched:
        patched.setattr(storage, "faults", counted)
        run.delete()
    home, forked = run.path.parent, multiprocessing.get_context("fork")
    assert list(home.iterdir()) == [] and counted.calls > len(inside(kept))
    for last in range(counted.calls):
        shutil.copytree(kept, run.path, dirs_exist_ok=True)
        with monkeypatch.context() as patched:
            patched.setattr(storage, "faults", AtCall(last))
            process = forked.Process(target=run.delete)
            process.start()
            process.join()
        assert process.exitcode == 9
        assert not run.path.exists() or inside(run.path) == inside(kept)
        files.sweep(home)
        assert [path for path in home.iterdir() if path != run.path] == []


class FullDisk:
    """A disk that has no room for anything new."""

    def step(self, call: str, path: str, source: str = "") -> None:
        if call not in ("lock", "rename", "unlink", "rmdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def test_a_run_on_a_full_disk_is_deleted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting is what the line about a full disk advises."""
    monkeypatch.setattr(storage, "faults", FullDisk())
    run.delete()
    assert list(run.path.parent.iterdir()) == []


def test_a_run_that_is_a_link_is_not_deleted(run: Run, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    run.path.rename(real)
    run.path.symlink_to(real)
    with pytest.raises(UserError, match="it is a link"):
        run.delete()
    assert run.path.is_symlink() and run.exists()


def test_the_state_of_a_run_follows_from_its_lock(run: Run) -> None:
    assert run.status().state == "new"
    for said, dead, alive in (("running", "died", "running"), ("paused", "died", "paused"), ("starting", "starting", "starting"),
                              ("finished", "finished", "finished"), ("stopped", "stopped", "stopped")):  # fmt: skip
        run.write_status(said)
        assert run.status().state == dead
        with run.held(1):
            assert run.alive() and run.status().state == alive
    (run.path / "status.json").write_text(json.dumps({"state": "starting", "time": 1.0}))  # long ago
    assert run.status().state == "died"


def test_the_last_line_is_found_after_partial_lines_and_junk(run: Run) -> None:
    run.metrics_path.write_bytes(line(1) + line(2, val_loss=0.5) + b"junk\n" + b'{"step": 3, "lo')
    last = run.last_metric()
    assert last is not None and (last.step, last.val_loss) == (2, 0.5)


def test_a_growing_file_is_read_line_by_line(run: Run) -> None:
    tail = MetricsTail(run.metrics_path)
    assert tail.new() == []
    with run.metrics_path.open("ab", buffering=0) as file:
        file.write(line(1) + line(2)[:10])
        assert [m.step for m in tail.new()] == [1]
        assert tail.new() == []
        file.write(line(2)[10:] + line(3))
        assert [m.step for m in tail.new()] == [2, 3] and not tail.restarted
        skipped = MetricsTail(run.metrics_path)
        skipped.skip()
        file.write(line(4, loss=math.inf))
        assert [m.step for m in skipped.new()] == [4]
    aside = run.path / "aside"
    aside.write_bytes(line(1))
    aside.replace(run.metrics_path)  # truncated by a resumed run
    assert [m.step for m in tail.new()] == [1] and tail.restarted


def test_skipping_spans_several_reads(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.metrics_path.write_bytes(b"".join(line(i) for i in range(20_000)))  # more than a megabyte
    tail = MetricsTail(run.metrics_path)
    tail.skip()
    assert tail.offset == run.metrics_path.stat().st_size and tail.new() == []


def test_an_earlier_run_s_setting_names_are_read() -> None:
    given = {"optimiser": "muon", "accumulation": 4}
    raw = {"version": 1, "corpus": ["/text.txt"], "preset": "toy", "device": "cpu", "settings": given}
    for settings in (from_fields(given), parse_config(raw, Path("/runs/old/config.json")).settings):
        assert (settings.optimizer, settings.grad_accumulation_steps) == ("muon", 4)
