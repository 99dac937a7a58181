"""The continuation belongs to the text, the sampler and the model that it was drawn after."""

from __future__ import annotations

import dataclasses

import pytest
from draw_helpers import draw_tokens, make_engine
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, until
from textual.pilot import Pilot

from tui_llm.facts.interventions import LAYER, Intervention, ModelPart
from tui_llm.facts.model import ModelChoices, Weights
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.facts.tokens import Token
from tui_llm.instruments.draws.question import DrawQuestion
from tui_llm.instruments.tree.question import NextToken
from tui_llm.instruments.tree.tree import Tree
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.draws.draw import DrawScreen, was_drawn
from tui_llm.tui.lab.tree import steps as steps_of
from tui_llm.tui.state.lab import Lab

OFF = (Intervention(ModelPart(LAYER, 1)),)


class ChatEngine(FakeEngine):
    """A fake engine whose models have a chat template."""

    def open(self, model: str) -> Weights:
        self.weights = dataclasses.replace(super().open(model), choices=ModelChoices(chat=True))
        return self.weights


async def three_drawn(pilot: Pilot[None], app: LabApp) -> Lab:
    await answered(pilot, app.lab_screen)
    await pilot.press("escape", "5")
    await draw_tokens(pilot, app.lab_screen, 3)
    await answered(pilot, app.lab_screen)
    return app.lab_screen.lab


@pytest.mark.parametrize("key", ["o", "x", "J"])
async def test_another_format_of_the_prompt_drops_the_continuation_for_good(key: str) -> None:
    app = make_app(ChatEngine())
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await three_drawn(pilot, app)
        await pilot.press(key)
        await answered(pilot, app.lab_screen)
        assert not lab.steps and "the prompt's format changed" in "\n".join(drawn(app))
        assert lab.speed is None and "tokens/s" not in "\n".join(drawn(app))
        await pilot.press("u")
        await answered(pilot, app.lab_screen)
        assert not lab.steps and lab.prompt == "The cat sat on the"


@pytest.mark.parametrize("key", ["o", "J"])
async def test_undo_brings_back_no_token_that_was_cleared_before_the_format_changed(key: str) -> None:
    app = make_app(ChatEngine())
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await three_drawn(pilot, app)
        await pilot.press("c", key, "u", "u", "u")
        await answered(pilot, app.lab_screen)
        assert not lab.steps and lab.prompt == "The cat sat on the"
        await draw_tokens(pilot, app.lab_screen, 1)
        await pilot.press("c", "u")  # drawn with this format: undo brings it back
        assert len(lab.steps) == 1


def test_a_change_of_the_format_keeps_what_undo_knows_of_the_models_parts() -> None:
    lab = Lab("The cat")
    lab.intervene(OFF)
    lab.change_format(start_token=True)
    assert lab.interventions == OFF and lab.undo() is not None and not lab.interventions
    lab.change_format(start_token=True)  # as it is: nothing is dropped
    assert lab.redo() is not None and lab.interventions == OFF


async def test_the_draw_says_when_the_model_now_selects_another_token() -> None:
    engine = make_engine()
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await three_drawn(pilot, app)
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, DrawScreen) and not app.screen.waiting)
        assert "drawn: T=" in "\n".join(drawn(app)) and "another token" not in "\n".join(drawn(app))
        await pilot.press("escape")
        answer = engine.answers[DrawQuestion]

        def moved(question: DrawQuestion) -> object:
            """As after a new checkpoint: the same u falls on another token."""
            draw = answer(question)
            landings = [
                dataclasses.replace(one, hit=one.segments[-1 - (one.hit == one.segments[-1])]) for one in draw.landings
            ]
            return dataclasses.replace(draw, landings=tuple(landings))

        engine.answers[DrawQuestion] = moved
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, DrawScreen) and not app.screen.waiting)
        screen = app.screen
        assert isinstance(screen, DrawScreen) and screen.draw is not None
        assert screen.draw.landings[0].hit.candidate.id != lab.steps[2].id
        words = "\n".join(drawn(app))
        assert "another token now: the model has changed since" in words
        assert "now: T=" in words and "drawn: T=" not in words
        asked = len(engine.questions)
        await pilot.press("minus")  # another u selects another token anyway
        await until(pilot, lambda: len(engine.questions) > asked and not screen.waiting)
        assert "another token now" not in "\n".join(drawn(app)) and "tried: T=" in "\n".join(drawn(app))


@pytest.mark.parametrize(("sampler", "hand"), [(SamplerSettings(0.8, top_p=0.9), True), (SamplerSettings(0.0), False)])
def test_a_path_of_the_tree_has_the_trees_sampler_and_its_changed_model(sampler: SamplerSettings, hand: bool) -> None:
    engine, lab = FakeEngine(), Lab("The cat", sampler)
    lab.interventions = OFF
    tree = Tree(lab.current_request(), engine.open("nano"), continued=(Token(3, b" sat", " sat"),))
    node = tree.add(tree.root, NextToken(Token(4, b" on", " on"), -0.5, 1.0, 1))
    drawn_one = tree.add(node, NextToken(Token(5, b" dog", " dog"), -0.5, 0.5, 1, 0.25))
    unlikely = tree.add(node, NextToken(Token(6, b" floor", " floor"), -3.0, 0.0, 2))
    found = steps_of(tree, drawn_one.path_nodes)
    assert all((step.sampler, step.interventions) == (sampler, OFF) for step in found)
    assert [step.by_hand for step in found] == [True, hand, False]
    assert was_drawn(found[1]) is not hand and was_drawn(found[2])
    assert steps_of(tree, unlikely.path_nodes)[-1].by_hand
    lab.steps, lab.sampler, lab.interventions = found, SamplerSettings(1.9), ()
    assert (lab.before_step(2).sampler, lab.before_step(2).interventions) == (sampler, OFF)


async def test_a_token_appended_by_hand_is_explained_by_the_changed_model() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = app.lab_screen
        await answered(pilot, screen)
        screen.lab.intervene(OFF)
        screen.context.request_reading()
        await answered(pilot, screen)
        await pilot.press("escape", "2", "down", "a")
        await answered(pilot, screen)
        assert screen.lab.steps[-1].by_hand and screen.lab.before_step(0).interventions == OFF


async def test_another_model_has_no_speed_and_no_earlier_target_by_id() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = app.lab_screen
        lab = await three_drawn(pilot, app)
        assert lab.speed is not None
        await pilot.press("2", "down", "enter", "3", "n")
        await answered(pilot, screen)
        assert lab.target is not None and lab.target.own
        assert lab.target_before_own is not None and lab.target_before_own.id is not None
        screen.models.open("another")
        await until(pilot, lambda: screen.context.model == "another")
        await answered(pilot, screen)
        assert lab.speed is None
        await pilot.press("n")
        assert lab.target is None  # its id is another token now


@pytest.mark.parametrize(("pane", "key"), [("1", "L"), ("2", "T"), ("2", "a")])
async def test_no_screen_shows_the_numbers_of_an_older_text(pane: str, key: str) -> None:
    engine = FakeEngine()
    app = make_app(engine)
    try:
        async with app.run_test(size=(120, 40)) as pilot:
            await answered(pilot, app.lab_screen)
            engine.gate.clear()  # the next reading waits
            await pilot.press("!", "escape", pane, *(("down",) if pane == "2" else ()), key)
            await pilot.pause()
            assert not app.lab_screen.context.reading_is_current and app.screen is app.lab_screen
            assert app.lab_screen.lab.prompt.endswith("!") and not app.lab_screen.lab.steps
            assert [note.message for note in app._notifications][-1] == "the panes are still updating; try again"
    finally:
        engine.gate.set()
