"""The app's model follows the watched run: each new checkpoint is opened, and all panes are updated."""

from __future__ import annotations

import fake_run
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, until
from textual.pilot import Pilot

from tui_llm.common import paths
from tui_llm.facts.model import Weights
from tui_llm.training.run.run import Run
from tui_llm.tui.app import LabApp
from tui_llm.tui.runs.pane import TrainingPane


class RunEngine(FakeEngine):
    """A fake engine that also opens runs, at the step of their newest checkpoint."""

    def open(self, model: str) -> Weights:
        run = Run(paths.runs_dir() / model.removeprefix(paths.RUN))
        step = run.checkpoints()[-1][0] if run.exists() else None
        self.opened.append(model if step is None else f"{run.name}@{step}")
        self.weights = Weights(run.name, step, 2_600_000, 4, 4, 128, 64, 1000, "cpu")
        return self.weights

    def refresh(self) -> Weights | None:
        assert self.weights is not None
        before = self.weights
        newest = Run(paths.runs_dir() / before.name).checkpoints()
        return self.open(before.name) if newest and newest[-1][0] != before.step else None


def top(app: LabApp) -> str:
    return drawn(app)[0]


async def watching(pilot: Pilot[None], app: LabApp, name: str) -> TrainingPane:
    await answered(pilot, app.lab_screen)
    await pilot.press("escape")
    pane = app.lab_screen.query_one(TrainingPane)
    await until(pilot, lambda: pane.snapshot and pane.snapshot.name == name)
    return pane


async def test_f_opens_the_watched_run_and_each_new_checkpoint_until_f_again() -> None:
    run = fake_run.make("tales", steps=1000, done=3, state="running")
    fake_run.checkpoint(run, 250)
    engine = RunEngine()
    app = make_app(engine)
    with fake_run.alive(run):
        async with app.run_test(size=(120, 40)) as pilot:
            await watching(pilot, app, "tales")
            assert engine.opened == ["nano"]  # nothing is followed unless requested
            await pilot.press("f")
            await until(pilot, lambda: "tales at step 250, following " in top(app))
            fake_run.checkpoint(run, 500)
            await until(pilot, lambda: "tales at step 500, following " in top(app))
            await answered(pilot, app.lab_screen)
            assert app.lab_screen.reading and engine.opened == ["nano", "tales@250", "tales@500"]
            await pilot.press("f")
            await until(pilot, lambda: "following" not in top(app))
            fake_run.checkpoint(run, 750)
            pane = app.lab_screen.query_one(TrainingPane)
            await until(pilot, lambda: pane.snapshot and pane.snapshot.checkpoint == 750)
            await pilot.pause()
            assert "tales at step 500 " in top(app) and len(engine.opened) == 3


async def test_generated_text_is_kept_when_the_followed_run_has_a_new_checkpoint() -> None:
    run = fake_run.make("tales", steps=1000, done=3, state="running")
    fake_run.checkpoint(run, 250)
    app = make_app(RunEngine())
    with fake_run.alive(run):
        async with app.run_test(size=(120, 40)) as pilot:
            await watching(pilot, app, "tales")
            await pilot.press("f")
            await until(pilot, lambda: "step 250, following" in top(app))
            await pilot.press("g")
            await until(pilot, lambda: len(app.lab_screen.lab.steps) == 1)
            fake_run.checkpoint(run, 500)
            await until(pilot, lambda: "step 500, following" in top(app))
            assert len(app.lab_screen.lab.steps) == 1


async def test_a_run_without_a_checkpoint_is_waited_for() -> None:
    run = fake_run.make("tales", steps=1000, done=3, state="running")
    app = make_app(RunEngine())
    with fake_run.alive(run):
        async with app.run_test(size=(120, 40)) as pilot:
            await watching(pilot, app, "tales")
            await pilot.press("f")
            await until(pilot, lambda: "nano, waiting for a checkpoint of tales" in top(app))
            fake_run.checkpoint(run, 100)
            await until(pilot, lambda: "tales at step 100, following" in top(app))


async def test_following_switches_to_another_watched_run() -> None:
    for name, step, age in (("first", 10, 10), ("second", 20, 20)):
        run = fake_run.make(name, done=3)
        fake_run.checkpoint(run, step)
        fake_run.made_at(run, age)
    app = make_app(RunEngine())
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await watching(pilot, app, "first")
        await pilot.press("f")
        await until(pilot, lambda: "first at step 10, following" in top(app))
        pane.follow(Run(paths.runs_dir() / "second"))
        await until(pilot, lambda: "second at step 20, following" in top(app))
        pane.follow(fake_run.make("third", done=3))
        await until(pilot, lambda: "second at step 20, waiting for a checkpoint of third" in top(app))


async def test_opening_a_model_ends_following_which_needs_a_run() -> None:
    engine = RunEngine()
    app = make_app(engine)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "f")
        await until(pilot, lambda: any("no run to follow" in line for line in drawn(app)))
        assert not app.lab_screen.follow_run.following
        run = fake_run.make("tales", done=3)
        fake_run.checkpoint(run, 3)
        app.lab_screen.query_one(TrainingPane).follow(run)
        await watching(pilot, app, "tales")
        await pilot.press("f")
        await until(pilot, lambda: "tales at step 3, following" in top(app))
        app.lab_screen.models.open("nano")
        await until(pilot, lambda: top(app).startswith(" nano  "))
        assert not app.lab_screen.follow_run.following
