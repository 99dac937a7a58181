"""Actions on a run in the Runs screen: rename, continue, compare, export."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import fake_run
import pytest
from helpers import drawn, question_editor, unsafe, until
from test_runs_screen import ScreenApp
from textual.pilot import Pilot
from textual.widgets import DataTable

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.training.plan import launch
from tui_llm.training.run.rename import rename
from tui_llm.training.run.run import Run, find
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.runs import run_actions
from tui_llm.tui.runs.compare import CompareScreen
from tui_llm.tui.runs.run_rows import RunRow
from tui_llm.tui.runs.runs import RunsScreen

HOSTILE = ["../up", "a/b", "", "[/]", "\x1b[31m", "x\u202ey", "名前", ".hidden", "e\u0301", "x" * 65, "taken"]


def listed(app: ScreenApp, count: int) -> bool:
    return len(app.shown.query_one(DataTable).rows) == count


async def answer(app: ScreenApp, pilot: Pilot[None], key: str, text: str) -> None:
    """Presses `key` and answers the dialog that it opens."""
    await pilot.press(key)
    (await question_editor(pilot)).set_text(text)
    await pilot.press("enter")
    await until(pilot, lambda: app.screen is app.shown)


async def test_a_renamed_run_keeps_its_mark() -> None:
    run = fake_run.make("tales", done=3)
    fake_run.made_at(fake_run.make("other", done=3), 100)
    app = ScreenApp(RunsScreen())
    async with app.run_test(size=(120, 24)) as pilot:
        await until(pilot, lambda: listed(app, 2))
        await pilot.press("space")
        await until(pilot, lambda: "◆ tales" in app.text)
        await answer(app, pilot, "r", "legends")
        await until(pilot, lambda: "◆ legends" in app.text)
        assert not run.path.exists() and find("legends").status().step == 3
        assert "tales" not in app.text.replace("/texts/tales", "")


async def test_changes_made_while_the_runs_are_read_are_shown_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    run = fake_run.make("tales", done=3)
    app, going, go_on = ScreenApp(RunsScreen()), threading.Event(), threading.Event()
    async with app.run_test(size=(120, 24)) as pilot:
        await until(pilot, lambda: listed(app, 1))
        read = app.shown._reader.read  # type: ignore[union-attr]

        def slowly(one: Run) -> RunRow:
            row = read(one)
            going.set()
            go_on.wait()
            return row

        monkeypatch.setattr(app.shown._reader, "read", slowly)  # type: ignore[union-attr]
        app.shown.reload()  # type: ignore[union-attr]
        try:
            await until(pilot, going.is_set)
            rename(run, "legends")
            app.shown.reload()  # type: ignore[union-attr]
        finally:
            go_on.set()
        await until(pilot, lambda: "legends" in app.text)


async def test_an_invalid_run_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(FileActions, "notify", lambda self, line, severity="": said.append(line))
    run, taken = fake_run.make("tales", done=3), fake_run.make("taken")
    fake_run.made_at(taken, 100)
    app = ScreenApp(RunsScreen())
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: listed(app, 2))
        for name in HOSTILE:
            before = len(said)
            await answer(app, pilot, "r", name)
            if name:
                await until(pilot, lambda before=before: len(said) > before)
            assert run.exists() and taken.exists() and not unsafe(drawn(app))  # type: ignore[arg-type]
        assert "a run or folder 'taken' already exists" in said[-1]
    assert sorted(path.name for path in paths.runs_dir().iterdir()) == ["taken", "tales"]


@pytest.mark.parametrize("key", ["r", "plus"])
async def test_a_living_run_is_neither_renamed_nor_continued(key: str) -> None:
    run = fake_run.make("tales", done=3, state="running")
    app = ScreenApp(RunsScreen())
    with fake_run.alive(run):
        async with app.run_test(size=(120, 24), notifications=True) as pilot:
            await until(pilot, lambda: listed(app, 1))
            await pilot.press(key)
            await until(pilot, lambda: "stop it first" in app.text)
            assert app.screen is app.shown


async def test_more_steps_continue_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, int]] = []
    monkeypatch.setattr(launch, "start", lambda run: started.append((run.name, run.config().settings.steps)))
    run = fake_run.make("tales", done=100, state="finished")
    app = ScreenApp(RunsScreen())
    async with app.run_test(size=(120, 30), notifications=True) as pilot:
        await until(pilot, lambda: listed(app, 1))
        for wrong, why in (
            ("many", "not a number of steps"),
            ("100", "give more steps than that"),
            ("[/]", "'[/]' is not"),
        ):
            await answer(app, pilot, "plus", wrong)
            await until(pilot, lambda why=why: any(why in note.message for note in app._notifications))
        assert run.config().settings.steps == 100 and not started
        await answer(app, pilot, "plus", "1,250")
        await until(pilot, lambda: started == [("tales", 1250)])


async def test_a_stopped_run_continues_to_fewer_steps_than_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr(launch, "start", lambda run: started.append(run.config().settings.steps))
    fake_run.make("tales", done=40, state="stopped")
    app = ScreenApp(RunsScreen())
    async with app.run_test(size=(120, 30), notifications=True) as pilot:
        await until(pilot, lambda: listed(app, 1))
        await answer(app, pilot, "plus", "50")
        await until(pilot, lambda: started == [50])


async def test_export_says_what_the_command_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def export(run: Run, folder: str) -> None:
        asked.append((run.name, folder))
        if len(asked) > 1:
            raise UserError("[/] already exists")

    monkeypatch.setattr(run_actions, "export", export)
    run = fake_run.make("tales", done=3)
    app = ScreenApp(RunsScreen())
    async with app.run_test(size=(120, 30), notifications=True) as pilot:
        await until(pilot, lambda: listed(app, 1))
        await pilot.press("x")
        await until(pilot, lambda: "no checkpoint yet" in app.text)
        fake_run.checkpoint(run, 3)
        await answer(app, pilot, "x", "made")
        await until(pilot, lambda: "tales exported to the model folder made" in app.text)
        await answer(app, pilot, "x", "made")
        await until(pilot, lambda: "[/] already exists" in app.text)
    assert asked == [("tales", "made")] * 2


@pytest.mark.parametrize("problem", ["", "there is no room"])
async def test_an_action_that_ends_after_its_screen_has_closed_is_still_told(
    monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    writing, go_on = threading.Event(), threading.Event()

    def export(run: Run, folder: str) -> None:
        writing.set()
        go_on.wait()
        if problem:
            raise UserError(problem)

    monkeypatch.setattr(run_actions, "export", export)
    fake_run.checkpoint(fake_run.make("tales", done=3), 3)
    app = ScreenApp(RunsScreen())
    async with app.run_test(size=(120, 30), notifications=True) as pilot:
        await until(pilot, lambda: listed(app, 1))
        await answer(app, pilot, "x", "made")
        await until(pilot, writing.is_set)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is not app.shown)
        go_on.set()
        told = problem or "tales exported to the model folder made"
        await until(pilot, lambda: any(told in note.message for note in app._notifications))


def test_export_runs_the_command_and_never_overwrites(tmp_path: Path) -> None:
    run = fake_run.make("tales", done=3)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        run_actions.export(run, str(tmp_path / "made"))


async def test_marked_runs_are_compared_with_the_one_under_the_cursor() -> None:
    for at, name in enumerate(("first", "second", "third")):
        run = fake_run.make(name, done=20 + 10 * at, corpus="/texts/[red]\x1b[31m.txt")
        settings = dataclasses.replace(run.config().settings, seed=at + 1)
        run.write_config(dataclasses.replace(run.config(), settings=settings))
        fake_run.made_at(run, 1000 * (at + 1))
    app = ScreenApp(RunsScreen())
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await until(pilot, lambda: listed(app, 3))
        await pilot.press("c")
        await until(pilot, lambda: "only one run" in app.text)
        await pilot.press("space", "down", "down", "c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen) and "at step" in app.text)
        assert not unsafe(drawn(app))  # type: ignore[arg-type]
        await pilot.press("y")
        copied = [line.split("\t") for line in app.clipboard.splitlines()]
        assert copied[0] == ["run", "first", "third"]
        assert ["steps", "20 / 100", "40 / 100"] in copied and ["seed", "1", "3"] in copied
        assert not any(row[0] == "corpus" for row in copied)  # the same in both
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.shown)


async def test_a_comparison_laid_out_before_its_rows_are_measured_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Textual (8.2.8) laid it out in between on a busy machine, kept the height of no rows, and the window stayed empty."""
    show = CompareScreen._show

    def laid_out_in_between(self: CompareScreen, rows: list[tuple[str, ...]]) -> None:
        show(self, rows)
        self.query_one("#compare-none")._check_refresh()  # its idle comes before the table's
        self._refresh_layout()

    monkeypatch.setattr(CompareScreen, "_show", laid_out_in_between)
    app = ScreenApp(CompareScreen([fake_run.make(name, done=3) for name in ("first", "second")]))
    async with app.run_test(size=(100, 30)) as pilot:
        table = app.shown.query_one(DataTable)
        await until(pilot, lambda: table.virtual_size.height > 1)
        app.shown._refresh_layout()
        assert table.size.height == table.virtual_size.height
        assert "at step" in app.text


@pytest.mark.parametrize("size", [(1, 1), (20, 5)])
async def test_the_comparison_fits_any_terminal(size: tuple[int, int]) -> None:
    runs = [fake_run.make(name, done=3) for name in ("first", "second")]
    (runs[1].path / "config.json").write_bytes(b'"\x1b]0;x\x07')
    app = ScreenApp(CompareScreen(runs))  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.shown.query_one(DataTable).row_count)
        assert not unsafe(drawn(app))  # type: ignore[arg-type]
