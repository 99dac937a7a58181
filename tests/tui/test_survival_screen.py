"""Runs on the screen after clock changes, by a later version, or on a read-only disk."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import fake_run
import pytest
from helpers import drawn, until
from test_run_watch import metric
from test_runs_screen import ScreenApp
from test_training_pane import PaneApp
from textual.widgets import DataTable

from tui_llm.common.numbers import duration
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import RunReader, seconds_left
from tui_llm.tui.runs.runs import RunsScreen


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home"
    monkeypatch.setenv("TUI_LLM_HOME", str(path))
    return path


def newer(name: str) -> Run:
    run = fake_run.make(name, done=3, state="running")
    config = json.loads((run.path / "config.json").read_text())
    config["settings"]["[red]experts\x1b[31m"] = 8
    (run.path / "config.json").write_text(json.dumps({**config, "version": 2}))
    return run


def contents(run: Run) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in run.path.iterdir() if file.is_file()}


async def test_a_newer_versions_run_is_shown_as_newer_and_never_changed() -> None:
    run = newer("later")
    before = contents(run)
    app = PaneApp()
    async with app.run_test(size=(140, 24)) as pilot:
        await until(pilot, lambda: app.state == "newer")
        await until(pilot, lambda: "made by a newer tui-llm" in " ".join(app.text.split()))
        assert "? newer" in app.text and "\x1b" not in app.text
        for key in ("p", "S", "e", "O", "a", "l", "f"):
            await pilot.press(key)
        await until(pilot, lambda: not app.workers._workers or all(w.is_finished for w in app.workers))
        assert app.is_running and app.state == "newer"
    assert contents(run) == before
    fake_run.make("mine", done=5)
    table = ScreenApp(RunsScreen())
    async with table.run_test(size=(120, 24)) as pilot:
        await until(pilot, lambda: len(table.shown.query_one(DataTable).rows) == 2)
        await until(pilot, lambda: "? newer" in table.text and "stopped" in table.text)
    assert contents(run) == before


@pytest.mark.parametrize("size", [(1, 1), (80, 24)])
async def test_it_fits_any_terminal(size: tuple[int, int]) -> None:
    newer("later")
    app = PaneApp()
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.state == "newer")
        assert len(drawn(app)) == size[1]  # type: ignore[arg-type]


async def test_a_run_on_a_read_only_disk_is_watched_and_says_why_it_cannot_be_controlled(home: Path) -> None:
    home.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(home)], capture_output=True)
    except OSError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("a disk can't be mounted here")
    try:
        run = fake_run.make("sealed", done=30, state="running")
        (run.path / "lock").touch()
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        app = PaneApp()
        async with app.run_test(size=(160, 24), notifications=True) as pilot:
            await until(pilot, lambda: app.state == "died")
            assert app.pane.snapshot and len(app.pane.snapshot.train) == 30
            await pilot.press("e")
            await until(pilot, lambda: "Read-only file system" in " ".join(app.text.split()))
            assert app.is_running
        table = ScreenApp(RunsScreen())
        async with table.run_test(size=(120, 24)) as pilot:
            await until(pilot, lambda: "died" in table.text)
    finally:
        subprocess.run(["umount", str(home)], check=True)


async def test_the_reason_for_a_skipped_checkpoint_is_shown_while_the_run_continues() -> None:
    run = fake_run.make("tales", done=3, state="running")
    app = PaneApp()
    with fake_run.alive(run):
        run.write_status("running", "checkpoint-30 is damaged and was skipped (its config.json is missing)")
        async with app.run_test(size=(120, 24)) as pilot:
            await until(pilot, lambda: "checkpoint-30 is damaged and was skipped" in app.text)
            run.write_status("running", "")
            await until(pilot, lambda: "was skipped" not in app.text)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -1e9, 1e9, math.inf, -math.inf, math.nan])
def test_a_clock_jump_does_not_change_the_time_left(jump: float) -> None:
    steps = [metric(step, 1000.0 + 2.0 * step + (jump if step > 25 else 0)) for step in range(1, 51)]
    assert seconds_left(steps, 100) == pytest.approx(100.0)
    for few in (steps[24:26], steps[24:27]):  # just after the jump: unknown or long, but never negative
        left = seconds_left(few, 100)
        assert left is None or left >= 0
        assert "-" not in duration(left or 0.0)


def test_invalid_times_are_read_safely() -> None:
    run = fake_run.make("tales", done=0, state="running")
    rows = [{"step": n, "loss": 1.0, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": -5.0, "time": t}
            for n, t in enumerate((5e9, -1.0, 0, 1e300, -1e300, 17.0), start=1)]  # fmt: skip
    run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with fake_run.alive(run):
        snapshot = RunReader(run).read()
    assert [step for step, _ in snapshot.train] == [1, 2, 3, 4, 5, 6]
    assert snapshot.seconds_left is None or snapshot.seconds_left >= 0
    assert snapshot.tokens_per_second is None
