"""The head detectors on screen: an induction head is found, switched off and on again, by keyboard; a run's heads."""

from __future__ import annotations

import fake_run
import pytest
from helpers import answered, drawn, make_app, unsafe, until

from tui_llm.engine import PipelineEngine
from tui_llm.facts.head_scores import HeadScore
from tui_llm.facts.interventions import HEAD, KEY, PATCH, Intervention, ModelPart
from tui_llm.training.run import head_readings, jsonl
from tui_llm.training.run.run import Run
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.heads import HeadsScreen
from tui_llm.tui.instruments.inside.heads import HeadGrid
from tui_llm.tui.instruments.inside.inside import InsideScreen
from tui_llm.tui.kit.widgets.head_map import HeadMap, score_text
from tui_llm.tui.runs.head_history import RunHeadsScreen

TEXT = "Mia found a little green frog. Mia found a little green"  # the model expects the frog again


@pytest.fixture
def engine() -> PipelineEngine:  # one for each app: only one thread may use it, and an app may end during an answer
    return PipelineEngine("cpu")


def shown(app: LabApp) -> str:
    return "\n".join(drawn(app))


async def test_an_induction_head_is_found_switched_off_and_on(engine: PipelineEngine) -> None:
    app = LabApp(lambda: engine, model="nano", prompt=TEXT)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "asterisk")
        await until(pilot, lambda: isinstance(app.screen, HeadsScreen))
        screen = app.screen
        assert isinstance(screen, HeadsScreen)
        await until(pilot, lambda: screen.found is not None and screen.loss is not None)
        map = screen.query_one(HeadMap)
        assert map.selected is not None and map.selected.name == "3.2"  # the best induction head is selected
        line = next(at for at, line in enumerate(drawn(app)) if line.strip("│┃ ").startswith("1 "))
        await pilot.click(offset=(drawn(app)[line].index("1 ") + 4, line))
        assert map.selected.name == "1.0"
        await pilot.press("b")  # the best one again
        await pilot.press("t")  # on the text itself
        await until(pilot, lambda: screen.found is not None and screen.found.question.own_text)
        assert map.selected.induction is not None and map.selected.induction > 0.4
        await pilot.pause()
        assert "on the text, " in shown(app) and "induction          3.2" in shown(app)

        await pilot.press("enter")  # its attention
        await until(pilot, lambda: isinstance(app.screen, InsideScreen))
        grid = app.screen.query_one(HeadGrid)
        await until(pilot, lambda: (grid.layer_number, grid.head_number) == (3, 2))
        row = grid.attention_row
        assert row is not None and grid.attention is not None
        tokens = grid.attention.place.tokens
        assert tokens[row.strongest - 1].id == tokens[-1].id  # it looks at what followed the earlier occurrence
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)

        before = screen.loss
        assert before is not None and before.after == before.before
        await pilot.press("x")  # off
        await until(pilot, lambda: screen.loss is not None and screen.loss.interventions)
        off = screen.loss
        assert off is not None and off.interventions == (Intervention(ModelPart(HEAD, 3, 2)),)
        assert off.before == before.before and off.after.loss > before.before.loss + 1
        await until(pilot, lambda: "head 3.2 off" in shown(app) and "→" in shown(app))
        await pilot.press("escape")
        await answered(pilot, lab)
        assert lab.reading is not None and lab.reading.loss is not None
        assert lab.reading.loss.sum == pytest.approx(off.after.loss, abs=1e-4)

        await pilot.press("asterisk")
        await until(pilot, lambda: isinstance(app.screen, HeadsScreen) and app.screen.loss is not None)
        again = app.screen
        assert isinstance(again, HeadsScreen)
        await until(pilot, lambda: again.found is not None)
        await pilot.press("x")  # and on again
        await until(pilot, lambda: again.loss is not None and not again.loss.interventions)
        assert lab.lab.interventions == ()
        await pilot.press("escape")
        await answered(pilot, lab)
        assert lab.reading.loss is not None
        assert lab.reading.loss.sum == pytest.approx(before.before.loss, abs=1e-4)


async def test_what_is_left_out_on_random_tokens_is_said(engine: PipelineEngine) -> None:
    app = LabApp(lambda: engine, model="nano", prompt=TEXT)
    async with app.run_test(size=(100, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.context.intervene((Intervention(ModelPart(KEY, 3)), Intervention(ModelPart(HEAD, 3, 2))))
        await answered(pilot, lab)
        await pilot.press("escape", "asterisk")
        await until(pilot, lambda: isinstance(app.screen, HeadsScreen) and app.screen.found is not None)
        screen = app.screen
        assert isinstance(screen, HeadsScreen)
        await until(pilot, lambda: "scores without attention to token 3 off" in shown(app))
        await pilot.press("y")
        assert {row.split("\t")[-1] for row in app.clipboard.splitlines()[1:]} == {"changed model: head 3.2 off"}
        await pilot.press("t")
        await until(pilot, lambda: screen.found is not None and screen.found.question.own_text)
        await until(pilot, lambda: "scores without" not in shown(app))
        await pilot.press("y")
        assert "changed model: attention to token 3 off, head 3.2 off" in app.clipboard


async def test_a_head_that_is_left_out_is_not_marked_as_changed(engine: PipelineEngine) -> None:
    app = LabApp(lambda: engine, model="nano", prompt=TEXT)
    async with app.run_test(size=(110, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        patched = Intervention(ModelPart(HEAD, 3, 2), PATCH, (1, 2, 3, 4))  # of tokens of the text, by their number
        app.lab_screen.context.intervene((patched, Intervention(ModelPart(HEAD, 0, 1))))
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "asterisk")
        await until(pilot, lambda: isinstance(app.screen, HeadsScreen) and app.screen.found is not None)
        screen = app.screen
        assert isinstance(screen, HeadsScreen)
        map = screen.query_one(HeadMap)
        await until(pilot, lambda: "changed model: head 0.1 off" in shown(app))
        assert map.off == {(0, 1)} and "scores without head 3.2 from another prompt" in shown(app)
        await pilot.press("t")  # on the text it acts
        await until(pilot, lambda: "changed model: head 3.2 from another prompt, head 0.1 off" in shown(app))
        assert map.off == {(3, 2), (0, 1)} and "scores without" not in shown(app)


@pytest.mark.parametrize("size", ((1, 1), (30, 8), (200, 60)), ids=str)
async def test_every_size_and_a_text_without_repetition(engine: PipelineEngine, size: tuple[int, int]) -> None:
    app = LabApp(lambda: engine, model="nano", prompt="A \x1b[31m [red] cat")
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "asterisk")
        await until(pilot, lambda: isinstance(app.screen, HeadsScreen) and app.screen.found is not None)
        screen = app.screen
        assert isinstance(screen, HeadsScreen)
        await pilot.press("b", "b", "m", "left", "down", "r", "t")
        await until(pilot, lambda: screen.found is not None and screen.found.question.own_text)
        await pilot.pause()
        assert not unsafe(drawn(app))
        if size == (200, 60):
            assert "no token occurs twice" in shown(app) or "induction" in shown(app)


def add(run: Run, step: int, induction: float) -> None:
    scores = [HeadScore(layer, head, induction if (layer, head) == (1, 0) else 0.01, 0.2, 0.1) for layer in (0, 1) for head in (0, 1)]  # fmt: skip
    jsonl.append_to(run.heads_path, head_readings.line(step, scores))


async def test_heads_of_a_run_step_by_step() -> None:
    run = fake_run.make("tales", done=100)
    for step, induction in ((0, 0.02), (50, 0.1), (100, 0.97)):
        add(run, step, induction)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "4")
        pane = app.lab_screen.query_one("#training")
        await until(pilot, lambda: pane.snapshot is not None)  # type: ignore[attr-defined]
        await pilot.press("asterisk")
        await until(pilot, lambda: isinstance(app.screen, RunHeadsScreen) and app.screen.saved)
        screen = app.screen
        assert isinstance(screen, RunHeadsScreen)
        await until(pilot, lambda: "step 100 (3 of 3, newest)" in shown(app))
        assert "1.0 0.970" in shown(app) and ".97" in shown(app)
        await pilot.press("left")
        await until(pilot, lambda: "step 50 (2 of 3)" in shown(app) and "1.0 0.100" in shown(app))
        await pilot.press("home")
        await until(pilot, lambda: "step 0 (1 of 3)" in shown(app))
        await pilot.press("end")
        add(run, 110, 0.5)  # the newest is followed
        await until(pilot, lambda: "step 110 (4 of 4, newest)" in shown(app))
        await pilot.press("left_square_bracket", "up", "right_square_bracket", "m", "y", "escape")
        await until(pilot, lambda: not isinstance(app.screen, RunHeadsScreen))


async def test_a_run_without_scores_says_so() -> None:
    fake_run.make("tales", done=100)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "4")
        pane = app.lab_screen.query_one("#training")
        await until(pilot, lambda: pane.snapshot is not None)  # type: ignore[attr-defined]
        await pilot.press("asterisk")
        await until(pilot, lambda: isinstance(app.screen, RunHeadsScreen) and "no head scores" in shown(app))


def test_a_score_in_three_characters() -> None:
    assert [score_text(one) for one in (0.0, 0.004, 0.15, 0.994, 0.995, 1.0, None)] == [".00", ".00", ".15", ".99", "1.0", "1.0", "–"]  # fmt: skip
