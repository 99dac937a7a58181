"""Events outside the program that affect a run: damaged files, clock changes, other file systems, other versions."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.run_helpers import TINY, begin, contents, leftovers, lines, losses, make, wait, words, work
from tui_llm import cli
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_json
from tui_llm.engine import PipelineEngine
from tui_llm.llm.model import intact
from tui_llm.training.plan import launch, processes
from tui_llm.training.plan.follow import progress
from tui_llm.training.run.metrics import MetricsTail
from tui_llm.training.run.run import Run, find
from tui_llm.training.run.settings import from_fields


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def copied(run: Run, name: str) -> Run:
    shutil.copytree(run.path, run.path.with_name(name))
    return Run(run.path.with_name(name))


# ── a checkpoint that is damaged after it was saved ──────────────────────────────────────────────────────────────


def flip(file: Path) -> None:
    """Flips one bit in the middle of a file; in weights, that is inside a number and still loads."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 7)


FILES = ("model.safetensors", "optimizer.safetensors", "config.json", "vocab.json", "training.json")


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(text: Path) -> None:
    run = make("run", text)
    assert work(run) == 0
    newest = run.checkpoints()[-1][1]
    wanted, whole = losses(run), contents(newest)
    assert set(intact.check(newest)["sha256"]) == set(whole) - {"training.json"}
    for name in FILES:
        for damage in (flip, cut, Path.unlink, lambda file: file.write_bytes(b"\0" * 100)):
            damage(newest / name)
            # that bit may be part of the step number, which is checked too
            if (name, damage) != ("training.json", flip):
                with pytest.raises(UserError, match=r"its |not valid JSON"):
                    intact.check(newest)
            shutil.rmtree(newest)
            newest.mkdir()
            for file, data in whole.items():
                (newest / file).write_bytes(data)
    for name, damage, why in (
        ("model.safetensors", flip, "its model.safetensors is not what was saved"),
        ("optimizer.safetensors", flip, "its optimizer.safetensors is not what was saved"),
        ("training.json", Path.unlink, "its training.json is missing"),
        ("config.json", Path.unlink, "its config.json is missing"),
    ):
        other = copied(run, f"run-{name.split('.')[0]}-{damage.__name__}")
        damage(other.path / newest.name / name)
        assert work(other) == 0
        log = other.log_path.read_text()
        assert "checkpoint-30 is damaged and was skipped" in log and why in log, log
        assert losses(other) == wanted and contents(other.checkpoints()[-1][1]) == whole and not leftovers(other.path)


def test_export_uses_an_intact_checkpoint(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make("run", text, steps=14)
    assert work(run) == 0
    (_, older), (_, newer) = run.checkpoints()
    flip(newer / "model.safetensors")
    assert cli.main(["export", "run", str(tmp_path / "one")]) == 0
    said = capsys.readouterr()
    assert "run at step 7 " in said.out and "checkpoint-14 is damaged and was skipped" in said.err
    (older / "vocab.json").unlink()
    assert cli.main(["export", "run", str(tmp_path / "two")]) == 2
    told = capsys.readouterr().err
    assert "no intact checkpoint" in told and told.count("\n") == 1 and not (tmp_path / "two").exists()


def test_open_uses_an_intact_checkpoint(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make("run", text, steps=14)
    assert work(run) == 0
    (_, older), (_, newer) = run.checkpoints()
    (newer / "optimizer.safetensors").unlink()  # not needed for opening a model
    engine = PipelineEngine("cpu")
    assert (engine.open("run").step, engine.weights().note) == (14, "")
    read: list[str] = []
    digest = intact._digest
    monkeypatch.setattr(intact, "_digest", lambda file: read.append(file.name) or digest(file))
    assert engine.refresh() is None and read == []  # known to be intact: not read again
    flip(newer / "model.safetensors")
    opened = engine.open("run:run")
    assert opened.step == 7 and opened.note.startswith("checkpoint-14 is damaged and was skipped (its model.safe")
    assert read.count("model.safetensors") == 2 and "optimizer.safetensors" not in read
    assert engine.refresh() is None
    monkeypatch.setattr(intact, "LARGE", 100)
    assert engine.refresh() is not None and engine.weights().step == 14  # too large to be read again
    (older / "vocab.json").unlink()
    flip(newer / "config.json")
    with pytest.raises(UserError, match=r"no intact checkpoint: checkpoint-14 .*; checkpoint-7 .*resume it"):
        engine.open("run")
    assert engine.refresh() is None and engine.weights().step == 14


def test_a_checkpoint_without_recorded_digests_is_trusted(text: Path) -> None:
    run = make("run", text)
    assert work(run) == 0
    record = run.checkpoints()[-1][1] / "training.json"
    record.write_text('{"step": 30, "seed": 1}')
    before = losses(run)
    assert work(run) == 0 and losses(run) == before and "damaged" not in run.log_path.read_text()


# ── a loss that explodes ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_with_diverged_weights_is_not_resumed_from(text: Path) -> None:
    # The learning rate is raised so much that the next loss is huge, but finite.
    run = make("run", text, checkpoint_every=1, eval_every=1000, steps=60, warmup_steps=0)
    assert work(run, ("half a line", 12)) == -9
    launch.change_learning_rate(run, 1000.0)
    assert work(run) == 1
    status = run.status()
    assert status.state == "failed" and "was changed to 1000: change it to a lower one" in status.message
    (last,) = {row[0] for row in losses(run)} - set(range(1, status.step))
    assert f"at step {last + 1} " in status.message and f"Checkpoint {last} contains those weights" in status.message
    assert [step for step, _ in run.checkpoints()] == [last - 1]
    weights = load_file(run.checkpoints()[0][1] / "model.safetensors")
    assert all(torch.isfinite(w).all() and w.abs().max() < 10 for w in weights.values())
    # With a lower rate, training resumes from there.
    launch.change_learning_rate(run, 1e-3)
    assert work(run) == 0 and [row[0] for row in losses(run)] == list(range(1, 61))


# ── a corpus that is deleted ──────────────────────────────────────────────────────────────────────────────────────


def test_a_corpus_deleted_during_training_is_needed_only_at_a_resume(text: Path) -> None:
    run = make("run", text, steps=1_000_000, checkpoint_every=50, eval_every=1_000_000)
    worker = begin(run)
    wait(lambda: run.status().step > 3)
    before = text.read_text()
    seen = run.status().step
    text.write_text("another text")  # first changed, then deleted: training uses the tokens in the cache
    wait(lambda: run.status().step > seen + 20)
    text.unlink()
    seen = run.status().step
    wait(lambda: run.status().step > seen + 20)
    worker.terminate()
    worker.join()
    assert worker.exitcode == 0 and run.status().state == "stopped"
    logged = losses(run)

    assert work(run) == 1
    status = run.status()
    assert status.state == "failed" and str(text) in status.message and "\n" not in status.message
    text.write_text(before + "!")
    assert work(run) == 1 and "has changed since it began; put the old text back" in run.status().message
    assert losses(run) == logged and run.checkpoints()  # nothing is lost
    text.write_text(before)
    worker = begin(run)
    wait(lambda: run.status().step > logged[-1][0])
    worker.terminate()
    worker.join()
    assert run.status().state == "stopped"
    assert [row[0] for row in losses(run)] == list(range(1, run.status().step + 1))


# ── a clock that jumps ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("hours", [-1.0, 1.0])
def test_a_clock_jump_changes_only_the_recorded_times(text: Path, hours: float) -> None:
    run, steady = make("run", text), make("steady", text)
    assert work(steady) == 0
    assert work(run, ("a clock that jumps", round(hours))) == 0, run.log_path.read_text()
    rows = lines(run.metrics_path)
    gaps = [b["time"] - a["time"] for a, b in itertools.pairwise(rows)]
    assert sum(abs(gap) > 3000 for gap in gaps) == 1  # the clock did jump
    assert losses(run) == losses(steady) and run.status().state == "finished"
    assert all(0 < row["tokens_per_second"] < 1e9 for row in rows)
    for metric in MetricsTail(run.metrics_path).new():
        assert "-" not in progress(run, metric).split("tokens/s")[1]


def test_a_starting_worker_survives_a_clock_jump(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make("run", text)
    run.write_status("starting")
    wall, steady = time.time(), time.monotonic()
    for jump in (-3600.0, 0.0, 3600.0):
        monkeypatch.setattr("tui_llm.training.run.status.time.time", lambda jump=jump: wall + jump)
        monkeypatch.setattr("tui_llm.training.run.status.time.monotonic", lambda: steady + 1)
        assert run.status().state == "starting", jump
        monkeypatch.setattr("tui_llm.training.run.status.time.monotonic", lambda: steady + 60)
        assert run.status().state == ("starting" if jump == 0.0 else "died"), jump
        with run.held(1):  # the lock does not depend on time
            assert run.status().state == "starting"


# ── a read-only folder ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def sealable(home: Path) -> Iterator[Callable[[], None]]:
    """Mounts a disk as the home, and yields a function that makes it read-only; skips if that is not possible.

    Permissions do not suffice, since they don't apply to root.
    """
    home.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(home)], capture_output=True)
    except OSError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("a disk can't be mounted here")
    yield lambda: subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True) and None
    subprocess.run(["umount", str(home)], check=True)


def test_a_run_on_a_read_only_disk_is_shown_and_each_action_refused_in_one_line(
    text: Path, sealable: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make("run", text, steps=40)
    assert work(run, ("half a line", 12)) == -9
    sealable()
    before = {str(p): p.stat().st_mtime_ns for p in run.path.rglob("*")}
    wishes: list[Callable[[], object]] = [
        lambda: launch.start(run),
        lambda: launch.pause(run),
        lambda: launch.change_learning_rate(run, 1e-3),
        lambda: launch.set_steps(run, 50),
        run.delete,
        lambda: make("new", text),
    ]
    for wish in wishes:
        with pytest.raises(UserError, match="Read-only file system") as told:
            wish()
        assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="make it writable"):
        launch.pause(run)
    assert cli.main(["runs"]) == 0
    shown = capsys.readouterr().out
    assert "run" in shown and "died" in shown
    command = [sys.executable, "-m", "tui_llm.training.worker", str(run.path)]
    environment = {**os.environ, "PYTHONPATH": processes.python_path()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "Read-only file system" in done.stdout and "make it writable" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert {str(p): p.stat().st_mtime_ns for p in run.path.rglob("*")} == before


def test_a_disk_that_becomes_read_only_ends_the_run_with_a_message(text: Path) -> None:
    run = make("run", text)
    assert work(run, ("a disk turned read only", 15)) == 1
    status = run.status()
    assert status.state == "failed" and "Read-only file system" in status.message
    assert "make it writable, then resume" in status.message and "\n" not in status.message
    assert 7 < status.step < 15 and [step for step, _ in run.checkpoints()] == [7]


# ── another file system ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than the temporary folder."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second filesystem here")
    folder = Path(tempfile.mkdtemp(prefix="tui-llm-", dir=shared))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("linked", [False, True], ids=["home", "runs-is-a-link"])
def test_a_run_on_another_filesystem(
    text: Path, home: Path, elsewhere: Path, linked: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    here = make("here", text)
    assert work(here) == 0
    if linked:
        shutil.move(home / "runs", elsewhere / "runs")
        (home / "runs").symlink_to(elsewhere / "runs")
    else:
        monkeypatch.setenv("TUI_LLM_HOME", str(elsewhere))
    there = make("there", text)
    assert there.path.resolve().is_relative_to(elsewhere)
    assert there.path.stat().st_dev != tmp_path.stat().st_dev
    assert work(there, ("half the weights", 3)) == -9
    assert work(there) == 0
    reference = find("here") if linked else here
    assert losses(there) == losses(reference)
    assert contents(there.checkpoints()[-1][1]) == contents(reference.checkpoints()[-1][1])
    assert leftovers(there.path) == []
    folder = tmp_path / "exported"  # back to the first file system
    assert cli.main(["export", "there", str(folder)]) == 0
    assert (folder / "model.safetensors").is_file() and "model folder" in capsys.readouterr().out
    there.delete()
    assert not there.path.exists()


# ── a newer version's run ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["version", "setting"])
def test_a_run_of_a_newer_version_is_listed_and_left_alone(
    text: Path, how: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make("run", text, steps=3)
    config = read_json(run.path / "config.json")
    if how == "version":
        config = {"version": 2, "corpora": [{"place": "a", "weight": 0.5}], "settings": {"layers": "4×2"}}
    else:
        config["settings"]["\x1b[31m[red]experts"] = 8
    (run.path / "config.json").write_text(json.dumps(config))
    (run.path / "status.json").write_text('{"state": "running", "message": "of a later kind"}')
    before = contents(run.path)

    status = run.status()
    assert status.state == "newer" and not status.alive
    assert "made by a newer tui-llm" in status.message and "update tui-llm" in status.message
    wishes: list[Callable[[], object]] = [
        lambda: launch.start(run),
        lambda: launch.pause(run),
        lambda: launch.unpause(run),
        lambda: launch.change_learning_rate(run, 1e-3),
        lambda: launch.set_steps(run, 50),
    ]
    for wish in wishes:
        with pytest.raises(UserError, match="made by a newer tui-llm"):
            wish()
    with pytest.raises(UserError, match="a run 'run' already exists"):
        make("run", text)  # its name is taken, though it has no steps yet
    assert work(run) == 2
    del before["config.json"]
    after = contents(run.path)
    log = after.pop("worker.log").decode()
    assert "made by a newer tui-llm" in log and "\x1b" not in log
    assert {name: after[name] for name in before} == before and set(after) == {*before, "config.json"}
    assert cli.main(["runs"]) == 0
    shown = capsys.readouterr().out
    assert "newer" in shown and "\x1b" not in shown
    assert cli.main(["train", "--resume", "--run", "run"]) == 2
    assert "made by a newer tui-llm" in capsys.readouterr().err


def test_an_older_versions_run_continues_with_the_defaults_of_its_time(text: Path) -> None:
    run = make("run", text, steps=3)
    config = read_json(run.path / "config.json")
    del config["version"], config["settings"]["optimizer"], config["settings"]["from_model"]
    (run.path / "config.json").write_text(json.dumps(config))
    assert run.config().settings == dataclasses.replace(from_fields({}, TINY), steps=3)
    assert work(run) == 0 and run.status().state == "finished"


def test_a_resume_that_is_short_of_memory_calls_no_checkpoint_damaged(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tui_llm.common.memory import NotEnoughMemory
    from tui_llm.llm.model import checkpoint
    from tui_llm.training.worker import checkpoints

    run = make("run", text, steps=14)
    assert work(run) == 0
    model = checkpoint.load(run.checkpoints()[-1][1])
    assert checkpoints.load_newest(run, model) is not None
    with monkeypatch.context() as patch:
        patch.setattr("tui_llm.common.memory.free_bytes", lambda: 1000)
        with pytest.raises(NotEnoughMemory, match="needs about"):
            checkpoints.load_newest(run, model)
    for error in (MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")):
        with monkeypatch.context() as patch:

            def short(*_: object, error: Exception = error) -> None:
                raise error

            patch.setattr(checkpoints, "load_file", short)
            with pytest.raises((MemoryError, RuntimeError)):
                checkpoints.load_newest(run, model)
    assert [step for step, _ in run.checkpoints()] == [7, 14]


def test_two_intact_checkpoints_are_kept_beside_a_damaged_later_one(text: Path) -> None:
    from tui_llm.training.worker import checkpoints

    run = make("run", text)
    for step in (13, 20, 25, 40):
        (run.path / f"checkpoint-{step}").mkdir()
        for name in ("config.json", "training.json"):
            (run.path / f"checkpoint-{step}" / name).write_text("{}")
    checkpoints.drop_old(run, 25)  # 40 was damaged: training went on from 20
    assert [step for step, _ in run.checkpoints()] == [20, 25, 40]
    checkpoints.drop_old(run, 40)
    assert [step for step, _ in run.checkpoints()] == [25, 40]
