"""Switch off, on the real engine: parts are switched by key, every pane is marked, and one key switches all on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from helpers import answered, drawn, until

from tests import HANG
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import KEY, MEAN, ZERO, Intervention, ModelPart, named
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.ablate.question import EffectsQuestion, ReferenceQuestion
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.ablate.ablate import AblateScreen
from tui_llm.tui.instruments.inside.inside import InsideScreen
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.lab.copy_save import reading_json
from tui_llm.tui.state.lab import Lab

TEXT = "Once upon a time, there was a little"


@pytest.fixture
def engine() -> Iterator[PipelineEngine]:
    yield PipelineEngine("cpu")


def make(engine: PipelineEngine, prompt: str = TEXT) -> LabApp:
    return LabApp(lambda: engine, model="nano", prompt=prompt)


def words(app: LabApp) -> str:
    return " ".join(" ".join(drawn(app)).split())


def said(app: LabApp) -> str:
    return " ".join(one.message for one in app._notifications)


async def opened(pilot, app: LabApp) -> AblateScreen:  # type: ignore[no-untyped-def]
    await until(pilot, lambda: app.lab_screen.reading is not None)
    await pilot.press("escape", "exclamation_mark")
    await until(pilot, lambda: isinstance(app.screen, AblateScreen))
    screen = app.screen
    assert isinstance(screen, AblateScreen)
    await until(pilot, lambda: screen.problem or (screen.state and screen.effects and not screen.waiting))
    return screen


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_a_click_selects_a_part_in_the_map_and_in_the_ranking(
    engine: PipelineEngine, size: tuple[int, int]
) -> None:
    app = make(engine)
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot, app)
        head = next(at for at, line in enumerate(drawn(app)) if line.split()[:2] == ["layer", "0"])
        await pilot.click(offset=(drawn(app)[head].index(" 2") + 1, head + 4))
        assert screen.part.name == "head 3.2" and not screen.off
        await pilot.click(offset=(drawn(app)[head].index("MLP") + 1, head + 1))
        assert screen.part.name == "MLP 0"
        ranked = [one.part.name for one in screen.effects.ranked()]  # type: ignore[union-attr]
        row = next(at for at, line in enumerate(drawn(app)) if line.strip("▸ ").startswith(ranked[2] + " "))
        await pilot.click(offset=(40, row))
        assert screen.part.name == ranked[2]
        embed = next(at for at, line in enumerate(drawn(app)) if line.split()[:1] == ["embed"])
        await pilot.click(offset=(drawn(app)[embed].index("position"), embed))
        assert screen.part.name == "position embedding"
        await pilot.press("enter")
        await until(pilot, lambda: named(app.lab_screen.lab.interventions) == "position embedding off")


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60), (30, 8)])
async def test_a_part_is_switched_off_and_every_pane_says_so(engine: PipelineEngine, size: tuple[int, int]) -> None:
    app = make(engine)
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot, app)
        assert len(screen.found) == 30
        lab = app.lab_screen.lab
        await pilot.press("down", "right", "enter")
        await until(pilot, lambda: lab.interventions)
        assert named(lab.interventions) == "head 1.1 off"
        await until(pilot, lambda: screen.state is not None and screen.state.interventions == lab.interventions)
        await answered(pilot, app.lab_screen)
        assert screen.state is not None
        assert lab.target == Target(id=screen.state.target[0].id)  # the likeliest token of the unchanged model
        reading = app.lab_screen.reading
        assert reading is not None and reading.loss is not None
        assert reading.loss.mean == screen.state.after.loss > screen.state.before.loss
        if size[0] > 80:
            assert "changed model: head 1.1 off" in words(app)
        await pilot.press("escape")
        await pilot.pause()
        if size[0] > 80:
            text = words(app)
            assert text.count("· changed model") == 5  # four panes and the top line
            assert "changed model: head 1.1 off; 0 switches on" in text
        elif size == (80, 24):
            assert "· changed model" in words(app)
        await pilot.press("0")
        await answered(pilot, app.lab_screen)
        assert lab.interventions == () and "changed model" not in words(app)
        await pilot.press("u")
        await answered(pilot, app.lab_screen)
        assert named(lab.interventions) == "head 1.1 off"
        await pilot.press("U")
        await answered(pilot, app.lab_screen)
        assert lab.interventions == ()


class Held(PipelineEngine):
    """Answers questions about a text and effects only while `gate` is set; `hows` of the effects that were asked for."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.gate, self.hows = threading.Event(), list[str]()
        self.gate.set()

    def answer(self, question, overtaken=lambda: False):  # type: ignore[no-untyped-def]
        if isinstance(question, EffectsQuestion | ReferenceQuestion):
            self.gate.wait(HANG)
        if isinstance(question, EffectsQuestion):
            self.hows.append(question.how)
        return super().answer(question, overtaken)


async def test_effects_that_arrive_while_another_prompt_is_typed_are_those_that_were_asked_for() -> None:
    app = make(engine := Held())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        engine.gate.clear()
        await pilot.press("m", "m")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        engine.hows.clear()
        engine.gate.set()
        await until(pilot, lambda: len(screen.found) == 30 and not screen.waiting)
        assert isinstance(app.screen, AskScreen) and set(engine.hows) == {MEAN} and not screen.problem
        await pilot.press("escape")
        await until(pilot, lambda: screen.how == ZERO and len(screen.found) == 30 and not screen.waiting)
        assert not screen.problem
        await pilot.press("m", "p", "escape")  # p alone changes nothing unless there is a prompt
        assert screen.how == MEAN


async def test_another_prompt_that_is_typed_before_the_text_was_read_does_not_keep_parts_from_being_switched() -> None:
    app = make(engine := Held())
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.lab_screen.reading is not None)
        engine.gate.clear()
        await pilot.press("escape", "exclamation_mark")
        await until(pilot, lambda: isinstance(app.screen, AblateScreen))
        screen = app.screen
        assert isinstance(screen, AblateScreen)
        await pilot.press("p", *"The end", "enter")
        await until(pilot, lambda: app.screen is screen)
        engine.gate.set()
        await until(pilot, lambda: screen.reference is not None and screen.own is not None)
        await until(pilot, lambda: len(screen.found) == 30 and not screen.waiting)
        await pilot.press("m", "enter")
        await until(pilot, lambda: named(app.lab_screen.lab.interventions) == "head 0.0 off")


async def test_means_other_prompts_and_attention_to_a_token(engine: PipelineEngine) -> None:
    app = make(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot, app)
        lab = app.lab_screen.lab
        before = dict(screen.found)
        await pilot.press("m")
        await until(pilot, lambda: len(screen.found) == 30 and not screen.waiting and screen.how == MEAN)
        assert screen.found != before
        await pilot.press("enter")
        await until(pilot, lambda: named(lab.interventions) == "head 0.0 at its mean")
        assert lab.interventions[0].reference == tuple(engine.ids(Request(prompt=TEXT)))
        await pilot.press("m")
        await pilot.press(*"The end", "enter")
        await until(pilot, lambda: screen.reference is not None and len(screen.found) == 30 and not screen.waiting)
        await pilot.press("right", "enter")
        await until(pilot, lambda: named(lab.interventions).endswith("head 0.1 from another prompt"))
        assert screen.number == 7
        await pilot.press("comma")
        await until(pilot, lambda: screen.token_effect is not None and screen.token_effect[0] == 6)
        await pilot.press("t")
        await until(pilot, lambda: len(lab.interventions) == 3)
        assert lab.interventions[-1] == Intervention(ModelPart(KEY, 6))
        await pilot.press("t")
        await until(pilot, lambda: len(lab.interventions) == 2)
        await pilot.press("n", "n", "N")
        assert screen.effects is not None and screen.part in [one.part for one in screen.effects.parts]
        await pilot.press("y")
        assert app.clipboard.startswith("part\tlayer\thead\tloss_change")
        await pilot.press("0")
        await until(pilot, lambda: lab.interventions == ())


async def test_copies_and_other_screens_are_marked_and_training_is_refused(engine: PipelineEngine) -> None:
    app = make(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot, app)
        await pilot.press("enter", "escape")  # what was switched last is still answered
        lab = app.lab_screen
        await until(pilot, lambda: lab.lab.interventions)
        await answered(pilot, lab)
        await pilot.press("y")
        header, first, *_ = app.clipboard.splitlines()
        assert header.endswith("\tchanged_model") and first.endswith("\tchanged model: head 0.0 off")
        await pilot.press("Y")
        assert json.loads(app.clipboard)["interventions"] == ["head 0.0 off"]
        assert lab.reading is not None and reading_json(lab.reading)["interventions"] == ["head 0.0 off"]
        await pilot.press("A")
        await until(pilot, lambda: isinstance(app.screen, InsideScreen))
        await pilot.pause()
        assert any(line.strip().startswith("changed model: head 0.0 off") for line in drawn(app)[:2])
        await pilot.press("escape", "3", "L")
        await until(pilot, lambda: "switch the parts on first (0)" in said(app))
        assert app.screen is lab


async def test_one_token_has_no_token_to_cut(engine: PipelineEngine) -> None:
    app = make(engine, "a")
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        assert screen.number is None
        await pilot.press("t")
        await pilot.pause()
        assert app.lab_screen.lab.interventions == ()


async def test_another_text_keeps_them_and_says_so(engine: PipelineEngine) -> None:
    app = make(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot, app)
        await pilot.press("enter", "escape")
        lab = app.lab_screen
        await until(pilot, lambda: lab.lab.interventions)
        await pilot.press("i", "x")
        await answered(pilot, lab)
        assert named(lab.lab.interventions) == "head 0.0 off"
        assert "still for the new text: head 0.0 off" in said(app)


def test_undo_and_redo_of_parts_between_changes_of_the_text() -> None:
    lab, off = Lab("one"), (Intervention(ModelPart("MLP", 0)),)
    lab.intervene(off)
    lab.prompt = "two"
    assert lab.request().interventions == off
    assert lab.undo() is not None and (lab.prompt, lab.interventions) == ("one", off)
    assert lab.undo() is not None and (lab.prompt, lab.interventions) == ("one", ())
    assert lab.redo() is not None and lab.interventions == off
    assert lab.redo() is not None and lab.prompt == "two"
    assert lab.redo() is None
    lab.intervene(off)  # no change
    assert lab.undo() is not None and lab.prompt == "one"
