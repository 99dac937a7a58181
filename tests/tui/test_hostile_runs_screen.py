"""Special files in place of a run's: the Runs screen and the Training pane show the problem and all other runs."""

from __future__ import annotations

import os
from pathlib import Path

import fake_run
import pytest
from helpers import drawn, until
from textual.app import App, ComposeResult
from textual.widgets import DataTable, Static

from tui_llm.training.run import snapshot
from tui_llm.training.run.run import Run
from tui_llm.tui.runs.pane import TrainingPane
from tui_llm.tui.runs.run_rows import RowReader
from tui_llm.tui.runs.runs import RunsScreen


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path / "home"))
    return tmp_path


def damaged() -> list[Run]:
    made = []
    for name in ("metrics.jsonl", "config.json", "status.json", "probes.jsonl", "control.json", "lock"):
        run = fake_run.make(f"fifo-{name.split('.')[0]}", done=20)
        (run.path / name).unlink(missing_ok=True)
        os.mkfifo(run.path / name)
        made.append(run)
    nan = fake_run.make("nan", done=20)
    with nan.metrics_path.open("ab") as file:
        file.write(b'{"step": 21, "loss": NaN, "lr": 1, "grad_norm": Infinity, "tokens_per_second": 1}\n')
    return [*made, nan]


class RunsApp(App[None]):
    def on_mount(self) -> None:
        self.push_screen(RunsScreen())


class PaneApp(App[None]):
    def compose(self) -> ComposeResult:
        yield TrainingPane()


async def test_the_runs_screen_shows_all_hostile_runs() -> None:
    damaged()
    fake_run.make("good", done=20)
    app = RunsApp()
    async with app.run_test(size=(160, 30)) as pilot:
        await until(pilot, lambda: "good" in "\n".join(drawn(app)))
        assert isinstance(app.screen, RunsScreen) and len(app.screen.query_one(DataTable).rows) == 8
        for line in drawn(app):
            if "fifo-" in line or "nan" in line:
                assert "! " in line, line
            if "good" in line:
                assert "█" in line and "! " not in line


async def test_the_training_pane_says_what_is_wrong_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = damaged()
    good = fake_run.make("good", done=20)
    app = PaneApp()
    async with app.run_test(size=(120, 30)) as pilot:
        pane = app.query_one(TrainingPane)
        message = pane.query_one("#run-message", Static)

        def said() -> str:
            return str(message.render())

        for run in [*runs, good]:
            pane.follow(run)
            await until(pilot, lambda run=run: pane.snapshot is not None and pane.snapshot.name == run.name)  # type: ignore[misc]
            wrong = "finite" if run.name == "nan" else "" if run is good else "regular file"
            assert wrong in said() and ("! " in said() or wrong in ("", "regular file")), (run.name, said())
        # An unexpected exception is shown as that run's problem too, and logged.
        monkeypatch.setattr(Run, "checkpoints", lambda self: 1 / 0 if self.name == "nan" else [])
        pane.follow(runs[-1])
        await until(pilot, lambda: "can't be read (ZeroDivisionError" in said())
        pane.follow(good)
        await until(pilot, lambda: pane.snapshot is not None and pane.snapshot.name == "good")


def test_an_unexpected_error_in_a_row_is_that_rows_problem(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = fake_run.make("one", done=20)
    monkeypatch.setattr(Run, "size", lambda self: 1 / 0)
    row = RowReader().read(run)
    assert (
        "ZeroDivisionError" in row.problem
        and "run one can't be read" in caplog.text
        and snapshot.log.name in caplog.text
    )
