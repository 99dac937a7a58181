"""The screen of curves, driven in the real app: the grid, the cursor and its values, axes, full size, overlay, export."""

from __future__ import annotations

import math
from pathlib import Path

import fake_run
import pytest
from helpers import drawn, make_app, unsafe, until
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot

from tui_llm.common.errors import UserError
from tui_llm.facts.head_scores import HeadScore
from tui_llm.training.plan import replay
from tui_llm.training.run import head_readings, jsonl, matrix_statistics
from tui_llm.training.run.matrix_statistics import MatrixStatistics
from tui_llm.training.run.run import Run
from tui_llm.tui.app import LabApp
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.raster import Raster
from tui_llm.tui.kit.widgets.probability_chart import Named, Probabilities
from tui_llm.tui.runs.branch import BranchScreen
from tui_llm.tui.runs.chart_export import probability_data
from tui_llm.tui.runs.curves.grid import CurvesGrid
from tui_llm.tui.runs.curves.plot import View
from tui_llm.tui.runs.curves.plot import drawn as plotted
from tui_llm.tui.runs.curves.screen import CurvesScreen
from tui_llm.tui.runs.head_history import RunHeadsScreen
from tui_llm.tui.runs.loss_chart import LossChart
from tui_llm.tui.runs.pane import TrainingPane
from tui_llm.tui.runs.pin_history import LearnedScreen
from tui_llm.tui.runs.runs import RunsScreen
from tui_llm.tui.runs.step import ReplayScreen


def made(name: str = "first", done: int = 60, layers: int = 2) -> Run:
    run = fake_run.make(name, done=done, flops_per_token=1000.0)
    for step in (1, *range(20, done + 1, 20)):
        by = {kind: tuple(0.01 * step * (layer + 1) for layer in range(layers)) for kind in ("q", "mlp_up")}
        jsonl.append_to(run.matrices_path, matrix_statistics.line(MatrixStatistics(step, by, by, (1.0,) * layers)))
    return run


async def opened(app: LabApp, pilot: Pilot[None], runs: list[Run]) -> CurvesScreen:
    screen = CurvesScreen(runs)
    app.push_screen(screen)
    grid = screen._grid
    await until(pilot, lambda: grid.shown.runs and grid.values and not grid.shown.runs[0].reading)
    await pilot.pause()
    return screen


def shown(app: LabApp) -> str:
    return "\n".join(drawn(app))


async def settled(pilot: Pilot[None], screen: CurvesScreen) -> None:
    """Waits for the values at the cursor."""
    await pilot.pause()
    await until(pilot, lambda: screen._shown_values == screen._asked)
    await pilot.pause()


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_the_cursor_shows_the_values_of_every_chart(size: tuple[int, int]) -> None:
    run = made()
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await pilot.press("escape", "4")
        await until(pilot, lambda: app.lab_screen.focused is not None and app.lab_screen.focused.id == "training")
        await pilot.press("C")
        await until(pilot, lambda: isinstance(app.screen, CurvesScreen))
        screen = app.screen
        assert isinstance(screen, CurvesScreen)
        await until(pilot, lambda: screen._grid.values)
        await settled(pilot, screen)
        text = shown(app)
        assert "Curves of first  by step" in text and "step 60" in text
        s = run.config().settings
        loss = 1 + 5 * math.exp(-60 / 100)
        assert f"{loss:.3g}" in text and "validation loss" in text and "gradient norm" in text
        tokens = 60 * s.batch_size * s.block_size
        assert f"{tokens:,} tokens" in text
        if size[0] == 200:
            assert "update ÷ weight, q" in text and "0 0.6  1 1.2" in text
            assert "– " in text and "not recorded by this run" in text  # kinds that the file lacks
        before = screen._grid.cursor_x
        await pilot.press("left", "left")
        await settled(pilot, screen)
        x = screen._grid.cursor_x
        step = round(x)
        assert x < before and f"step {step:,}" in shown(app) and f"{1 + 5 * math.exp(-step / 100):.3g}" in shown(app)
        assert f"at step {step // 10 * 10}" in shown(app)  # the validation loss is the last one before
        await pilot.press("end")
        await settled(pilot, screen)
        assert "step 60" in shown(app) and screen._grid.cursor is None
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)


async def test_axes_full_size_and_zoom() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot, [made()])
        grid = screen._grid
        for axis in ("tokens", "seconds of training", "FLOPs", "step"):
            await pilot.press("a")
            await settled(pilot, screen)
            assert f"by {axis}" in shown(app) and "step 60" in shown(app)
        await pilot.press("l", "L", "left")
        await settled(pilot, screen)
        assert "log x" in shown(app) and "log y" in shown(app) and 1 < grid.cursor_x < 60
        await pilot.press("l", "L", "f")
        await settled(pilot, screen)
        assert "of the batch, before the update" in shown(app) and "learning rate" not in shown(app)
        await pilot.press("right_square_bracket", "down")
        assert grid.infos[grid.selected].key == "lr"
        await pilot.press("home", "plus")
        await settled(pilot, screen)
        assert grid.view().left == 1 and grid.view().right < 40 and "zoomed" in shown(app)
        await pilot.press("minus", "minus", "minus")
        await settled(pilot, screen)
        assert grid.shown.window is None
        await pilot.press("escape")  # the grid again
        await pilot.pause()
        assert app.screen is screen and "validation loss" in shown(app)
        await pilot.click(CurvesGrid, offset=(grid.chart_size[0] + 20, 3))
        await settled(pilot, screen)
        assert grid.infos[grid.selected].key == "val_loss" and grid.cursor is not None
        await pilot.press("y")
        assert app.clipboard.startswith("step\tval_loss") and "60\t3\n" in app.clipboard


async def test_the_largest_row_loss_names_its_row() -> None:
    """A run of an earlier version has no such chart."""
    app, new = make_app(), fake_run.make("rows", done=20)
    fake_run.add(new, 21, 40, row_loss=4.8312, row=5, row_median=2.0, row_spread=0.1)
    async with app.run_test(size=(120, 60)) as pilot:
        screen = await opened(app, pilot, [new])
        assert "largest row loss" in shown(app) and "4.83 row 6" in shown(app)
        await pilot.press("f", "right_square_bracket", "right_square_bracket")
        await settled(pilot, screen)
        assert "of the batch's rows, the largest mean loss" in shown(app) and "4.83 row 6" in shown(app)
        await pilot.press("escape", "home")
        await settled(pilot, screen)
        assert "row 6" not in shown(app)  # not recorded there
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)
        await opened(app, pilot, [made()])
        assert "validation loss" in shown(app) and "largest row loss" not in shown(app)


async def test_runs_over_each_other_keep_their_legend() -> None:
    first, second = made(), made("second", done=30)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("escape", "R")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and len(app.screen.rows) == 2)
        screen = app.screen
        assert isinstance(screen, RunsScreen)
        await pilot.press("space", "down", "C")
        await until(pilot, lambda: isinstance(app.screen, CurvesScreen))
        curves = app.screen
        assert isinstance(curves, CurvesScreen)
        await until(pilot, lambda: curves._grid.values)
        await settled(pilot, curves)
        text = shown(app)
        assert {run.name for run in curves._grid.shown.runs} == {first.name, second.name}
        assert "•" in text and "+" in text and "first" in text and "second" in text
        short = f"{1 + 5 * math.exp(-30 / 100):.3g} at step 30"  # the ended run's last value stays
        assert short in text
        await pilot.press("f")
        await pilot.pause()
        assert "• " in shown(app) and "second" in shown(app)


async def test_it_works_while_a_run_trains() -> None:
    run = made(done=20)
    app = make_app()
    with fake_run.alive(run):
        async with app.run_test(size=(80, 24)) as pilot:
            screen = await opened(app, pilot, [run])
            fake_run.add(run, 21, 50)
            screen.reload()
            await until(pilot, lambda: screen._grid.shown.runs[0].steps[1] == 50)
            await settled(pilot, screen)
            assert "step 50" in shown(app)  # the cursor follows


async def test_export_from_the_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, [made()])
        for suffix, begins in (("svg", "<svg"), ("csv", "step,loss")):
            await pilot.press("x")
            await until(pilot, lambda: isinstance(app.screen, AskScreen))
            if suffix == "csv":
                await pilot.press(*"loss.csv")
            await pilot.press("enter")
            name = tmp_path / ("first-loss-1.svg" if suffix == "svg" else "loss.csv")
            await until(pilot, name.exists)
            assert name.read_text().startswith(begins)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(*"loss.csv", "enter")
        await until(pilot, lambda: any("already exists" in n.message for n in app._notifications))
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        app.screen.dismiss("x" * 300)
        await until(pilot, lambda: any("File name too long; give another one" in n.message for n in app._notifications))


async def test_the_other_charts_of_a_run_are_exported_by_one_key_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    run = made()
    scores = [HeadScore(0, 0, 0.5, 0.25, 0.125)]
    jsonl.append_to(run.heads_path, head_readings.line(10, scores))
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("escape", "4")
        await until(pilot, lambda: app.lab_screen.query_one(TrainingPane).snapshot is not None)
        await until(pilot, lambda: app.lab_screen.query_one(LossChart).curves.train)
        for opens, key, name, header in (("", "F", "first-loss", "step,training,validation"),
                                         ("asterisk", "x", "first-heads", "step,induction,previous,duplicate")):  # fmt: skip
            if opens:
                await pilot.press(opens)
                await until(pilot, lambda: isinstance(app.screen, RunHeadsScreen) and app.screen.saved)
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, AskScreen))
            await pilot.press(*f"{name}.csv", "enter")
            await until(pilot, (tmp_path / f"{name}.csv").exists)
            assert (tmp_path / f"{name}.csv").read_text().startswith(header)
        await pilot.press("escape", "h")
        await until(pilot, lambda: isinstance(app.screen, LearnedScreen) and app.screen.snapshot is not None)
        await pilot.press("x")
        await until(pilot, lambda: any("no chart to export" in n.message for n in app._notifications))
        data = probability_data("a pin", Probabilities((Named("target", ((0, 0.25), (10, 0.5))),)), log_y=True)
        assert list(data.rows()) == [("step", "target"), ("0", "0.25"), ("10", "0.5")] and data.log_y


async def test_enter_opens_the_step_under_the_cursor_and_a_branch_leaves_the_screen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "check", lambda *_: (_ for _ in ()).throw(UserError("not in this test")))
    run, told = fake_run.make("tales", steps=100, done=60), []
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(app, pilot, [run])
        curves = app.screen
        assert isinstance(curves, CurvesScreen)
        curves._branched = lambda parent, made: told.append((parent.name, made.name))
        for keys, step in ((("enter",), 60), (("home", "enter"), 1)):
            await pilot.press(*keys)
            await until(pilot, lambda: isinstance(app.screen, ReplayScreen))
            assert (app.screen.run_shown.name, app.screen.step) == ("tales", step)  # type: ignore[attr-defined]
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is curves)
        await pilot.press("a", "end", "left", "enter")  # over tokens
        await until(pilot, lambda: isinstance(app.screen, ReplayScreen))
        assert 50 < app.screen.step < 60  # type: ignore[attr-defined]
        await pilot.press("b")
        await until(pilot, lambda: isinstance(app.screen, BranchScreen))
        app.screen.dismiss(fake_run.make("branch"))
        await until(pilot, lambda: app.screen is app.lab_screen and told == [("tales", "branch")])


async def test_past_the_first_runs_end_enter_opens_its_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "check", lambda *_: (_ for _ in ()).throw(UserError("not in this test")))
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(app, pilot, [fake_run.make("short", done=20), fake_run.make("long", done=60)])
        await pilot.press("end", "enter")
        await until(pilot, lambda: isinstance(app.screen, ReplayScreen))
        assert (app.screen.run_shown.name, app.screen.step) == ("short", 20)  # type: ignore[attr-defined]


async def test_hostile_and_empty_runs() -> None:
    run = fake_run.make("broken")
    run.metrics_path.write_bytes(b'{"step": 1, "loss": NaN, "lr": Infinity, "grad_norm": 1e999, "tokens_per_second": -0.0}\n\x1b]0;x\n')  # fmt: skip
    run.matrices_path.write_bytes(b'{"step": 1, "gradient": {"q": [1e308, null]}, "update": {"q": []}}\n\xff\n')
    for size in ((80, 24), (12, 4), (1, 1)):
        app = make_app()
        async with app.run_test(size=size) as pilot:
            await opened(app, pilot, [run, fake_run.make(f"empty{size[0]}")])
            for key in ("f", "l", "L", "a", "left", "plus", "home", "f", "down", "y"):
                await pilot.press(key)
            await pilot.pause()
            assert not unsafe(drawn(app))


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_braille_lines_pass_through_their_points() -> None:
    raster = Raster(10, 5)
    raster.line([(0, 0), (1, 1)], 3)
    rows = raster.rows()
    assert rows[-1][0][1] == 3 and rows[0][-1][1] == 3
    dots = [[column for column, (char, _) in enumerate(row) if char != " "] for row in rows]
    assert all(dots) and dots[0][0] > dots[-1][-1] - 3  # a diagonal, connected
    raster = Raster(4, 2)
    raster.line([(-5, 0.5), (5, 0.5), (math.nan, 0), (0.5, 9.0)], 0)
    assert [char for char, _ in raster.rows()[0]] != [" "] * 4 or [char for char, _ in raster.rows()[1]] != [" "] * 4


@given(st.lists(st.tuples(st.floats(-2, 3), st.floats(-2, 3) | st.just(math.nan)), max_size=12), st.integers(1, 6))
def test_points_outside_are_left_out(points: list[tuple[float, float]], width: int) -> None:
    raster = Raster(width, 2)
    raster.line(sorted(points), 0)
    raster.line([(x, y + 0.01) for x, y in sorted(points)], 1)
    assert [len(row) for row in raster.rows()] == [width, width]
    if not any(-0.5 <= y <= 1.5 for _, y in points) and len(points) < 2:
        assert all(char == " " for row in raster.rows() for char, _ in row)


def test_axes_map_there_and_back() -> None:
    for view in (View(1, 100), View(1, 100, log_x=True), View(0, 10)):
        for share in (0, 0.25, 1):
            assert view.share(view.at(share)) == pytest.approx(share)
    plot = plotted([("", [(1, 0.0), (2, 5.0)], False)], View(1, 2, log_y=True), 20, 5, str)
    assert not plot.log_y and plot.height_of(5.0) == 1  # 0 has no logarithm: linear, and said by its labels
    assert plotted([("", [], False)], View(1, 2), 20, 5, str).empty
