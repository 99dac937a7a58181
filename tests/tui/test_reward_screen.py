"""Reward on the screen: steps, undo, rules, presets, scores by hand, saving; the tiny real engine, and hostile tokens."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from copy_helpers import opened, tiny_model
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, text, unsafe, until
from rich.style import Style
from textual.pilot import Pilot

from tests.hostile import TEXTS
from tui_llm.commands.reward import _add_options, run_text
from tui_llm.common.errors import UserError
from tui_llm.facts.model import Weights
from tui_llm.facts.policy import CLIP, PolicyRecipe, PolicySettings
from tui_llm.facts.request import Request
from tui_llm.facts.tokens import Token
from tui_llm.instruments.reward.question import (
    PRESETS,
    RewardGroup,
    RewardQuestion,
    RewardRun,
    RewardStep,
    SavedRewarded,
    SaveRewardedQuestion,
    ScoredAnswer,
)
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.reward.keys import KEYS
from tui_llm.tui.instruments.reward.lines import RewardLines, rows
from tui_llm.tui.instruments.reward.reward import RewardScreen
from tui_llm.tui.instruments.reward.settings import ASKED
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.columns import columns
from tui_llm.tui.kit.progress import SHOWN_AFTER


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@asynccontextmanager
async def rewarding(
    model: str, size: tuple[int, int] = (120, 40)
) -> AsyncIterator[tuple[LabApp, Pilot[None], RewardScreen]]:
    async with opened(RewardScreen, "dollar_sign", model, size) as (app, pilot, screen):
        await done(pilot, screen)
        screen.recipe = PolicyRecipe(samples=4, tokens=8, learning_rate=1e-2)
        await typed(pilot, app, screen, "s", "length:6")
        yield app, pilot, screen


async def done(pilot: Pilot[None], screen: RewardScreen, steps: int | None = None) -> None:
    await until(pilot, lambda: screen.run is not None and not screen.progress.doing and steps in (None, screen.at))
    await pilot.pause()


async def typed(pilot: Pilot[None], app: LabApp, screen: RewardScreen, key: str, words: str) -> None:
    await pilot.press(key)
    await until(pilot, lambda: isinstance(app.screen, AskScreen) and app.screen.query("#answer"))
    app.screen.query_one("#answer").text = words  # type: ignore[attr-defined]
    await pilot.press("enter")
    await until(pilot, lambda: app.screen is screen)
    await done(pilot, screen)


async def test_steps_are_learned_shown_and_undone(tiny: str) -> None:
    async with rewarding(tiny) as (app, pilot, screen):
        assert "nothing learned yet" in text(app) and "not learned yet" in text(app) and "length:6" in text(app)
        await pilot.press("space")
        await done(pilot, screen, 1)
        shown = text(app)
        assert "after 1 step" in shown and "mean reward" in shown and "KL, nats a token" in shown and "▲" in shown
        assert screen.run is not None and screen.run.group.answers[0].after
        await pilot.press("x")
        await done(pilot, screen, 11)
        assert "after 11 steps" in text(app) and "distinct answers" in text(app)
        group = screen.run.group
        await pilot.press("u")
        await done(pilot, screen, 10)
        await pilot.press("enter")
        await done(pilot, screen, 11)
        assert screen.run.group == group  # the same draws, the same step
        await pilot.press("d")
        await done(pilot, screen, 11)
        assert "step 12: drawn, not learned yet" in text(app)
        await pilot.press("n", "y", "z")
        await done(pilot, screen, 0)
        await pilot.press("u")
        assert "nothing learned yet" in text(app)


async def test_the_copy_stays_when_the_screen_closes(tiny: str) -> None:
    async with rewarding(tiny) as (app, pilot, screen):
        await pilot.press("space")
        await done(pilot, screen, 1)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)
        await pilot.press("dollar_sign")
        await until(pilot, lambda: isinstance(app.screen, RewardScreen) and app.screen.run is not None)
        assert isinstance(app.screen, RewardScreen)
        assert app.screen.at == 1 and app.screen.spec == "length:6" and app.screen.recipe == screen.recipe


async def test_scores_by_hand(tiny: str) -> None:
    async with rewarding(tiny) as (app, pilot, screen):
        await pilot.press("9")
        assert screen.spec == "hand" and screen.scores == [9, None, None, None] and screen.marked == 1
        await pilot.press("space")
        assert screen.at == 0  # three answers have no score
        await pilot.press("0", "3", "5")
        assert screen.scores == [9, 0, 3, 5]
        await pilot.press("up", "up", "up", "1")
        assert screen.scores == [1, 0, 3, 5]
        await pilot.press("space")
        await done(pilot, screen, 1)
        assert screen.run is not None and screen.run.steps[0].mean == 2.25 and "by hand" in text(app)
        await pilot.press("7")  # these are learned already
        await pilot.press("space")
        await done(pilot, screen, 1)
        assert screen.run.ahead and screen.scores == [None] * 4


async def test_rules_and_settings(tiny: str) -> None:
    async with rewarding(tiny) as (app, pilot, screen):
        await typed(pilot, app, screen, "s", "matches:(")
        assert screen.spec == "length:6"
        await typed(pilot, app, screen, "s", "count:e")
        assert screen.run is not None and screen.run.group.step.spec == "count:e"
        await typed(pilot, app, screen, "g", "6")
        assert len(screen.run.group.answers) == 6
        for key, words, name in (("L", "5", "tokens"), ("e", "0.5", "learning_rate"), ("N", "2", "updates")):
            await typed(pilot, app, screen, key, words)
            assert getattr(screen.recipe, name) == float(words)
        for key, words, name in (("B", "0", "beta"), ("c", "0.1", "clip"), ("t", "0.7", "temperature")):
            await typed(pilot, app, screen, key, words)
            assert getattr(screen.recipe.policy, name) == float(words)
        before = screen.recipe
        for key, words in (("g", "many"), ("g", "1"), ("e", "nan"), ("t", "0"), ("N", "1.5")):
            await typed(pilot, app, screen, key, words)
            assert screen.recipe == before
        await pilot.press("a")
        await done(pilot, screen)
        assert screen.recipe.policy.advantage == "std" and "÷ the group's standard deviation" in text(app)
        await pilot.press("l")
        await done(pilot, screen)
        assert screen.recipe.policy.average == "sequence"
        await typed(pilot, app, screen, "p", "Another")
        assert screen.run.prompt == "Another"


async def test_equal_rewards_are_said(tiny: str) -> None:
    async with rewarding(tiny) as (app, pilot, screen):
        await typed(pilot, app, screen, "s", "never:impossible")
        await pilot.press("space")
        await done(pilot, screen, 1)
        assert "all rewards are equal" in text(app)
        await pilot.press("k")
        assert app.screen is screen  # nothing to save


async def test_saving_and_opening(tiny: str) -> None:
    async with rewarding(tiny) as (app, pilot, screen):
        await pilot.press("space")
        await done(pilot, screen, 1)
        await pilot.press("o")
        assert app.screen is screen
        await typed(pilot, app, screen, "k", "bad name!")
        await until(pilot, lambda: "can't name a model" in screen.progress.problem)
        await typed(pilot, app, screen, "k", "rewarded-copy")
        await until(pilot, lambda: screen.saver.folder)
        assert (Path(screen.saver.folder) / "model.safetensors").exists()
        await pilot.press("o")
        await until(
            pilot, lambda: app.lab_screen.weights is not None and app.lab_screen.weights.name == "rewarded-copy"
        )


async def test_ten_steps_can_be_stopped(tiny: str) -> None:
    async with rewarding(tiny) as (app, pilot, screen):
        screen.goal, screen.progress.doing = 50, "taking 50 steps"
        screen._ask("taking 50 steps", 1, ahead=False)
        await pilot.press("escape")
        await done(pilot, screen)
        assert app.screen is screen and 0 < screen.at < 50
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)


def group_of(strings: tuple[str, ...], learned: bool) -> RewardGroup:
    answers = []
    for at, one in enumerate(strings):
        data = one.encode("utf-8", "surrogatepass")[:60]
        shown = data.decode("utf-8", "replace")
        tokens = (Token(at, data, shown),) * 3
        answers.append(ScoredAnswer(tokens, shown * 3, at, False, float(at), at - 1.0, (-1.0, -2.0, -9.0), (-0.5, -3.0, math.nan) if learned else ()))  # fmt: skip
    step = RewardStep(1, strings[0][:40], PolicyRecipe(samples=len(answers)), 1.0, 1.0, 0.1, len(answers), 0.5, learned)
    return RewardGroup(step, tuple(answers))


class HostileEngine(FakeEngine):
    def answer(self, question, overtaken=lambda: False):  # type: ignore[no-untyped-def]
        if isinstance(question, SaveRewardedQuestion):
            return SavedRewarded("x", "/x\x1b[31m", 1)
        if not isinstance(question, RewardQuestion):
            return super().answer(question, overtaken)
        if question.spec == "count:z":
            raise UserError("bad \x1b[31m [red]")
        at = question.at or 0
        group = group_of(TEXTS, learned=not question.ahead)
        steps = [dataclasses.replace(group.step, number=n + 1, mean=3.0 * n, kl=1.0 * n, spec=question.spec) for n in range(at)]  # fmt: skip
        return RewardRun(question, self.weights, TEXTS[5], tuple(steps), group, question.ahead, 1, 1, 1)


@pytest.mark.parametrize("size", [(80, 24), (200, 60), (30, 8), (1, 1)])
async def test_hostile_text_and_every_size(size: tuple[int, int]) -> None:
    app = make_app(HostileEngine())
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "dollar_sign")
        await until(pilot, lambda: isinstance(app.screen, RewardScreen))
        screen = app.screen
        assert isinstance(screen, RewardScreen)
        await done(pilot, screen)
        await pilot.press("x")
        await done(pilot, screen, 10)
        assert unsafe(drawn(app)) == set()
        if size[0] >= 80:
            assert "reward hacking" in text(app)
        await pilot.press("n", "end", "home", "v", "v")
        await done(pilot, screen)
        assert screen.spec == PRESETS[1].spec and unsafe(drawn(app)) == set() and screen.preset == 1
        screen._change_rule("count:z")
        await until(pilot, lambda: screen.progress.problem)
        await pilot.pause()
        assert unsafe(drawn(app)) == set() and screen.preset is None  # another rule is no longer the preset's
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)


def test_ln_p_of_answers_at_another_temperature_says_so() -> None:
    group = group_of(("a", "b"), learned=True)
    for temperature, said in ((1.0, ""), (0.5, " at T = 0.5")):
        recipe = PolicyRecipe(PolicySettings(temperature=temperature))
        drawn_at = dataclasses.replace(group, step=dataclasses.replace(group.step, recipe=recipe))
        weights = Weights("tiny", None, 1, 1, 1, 8, 16, 13, "cpu")
        run = RewardRun(RewardQuestion(Request(), recipe=recipe), weights, "", (drawn_at.step,), drawn_at, False, 1, 1, 1)  # fmt: skip
        lines, _ = RewardLines(lambda _: Style()).group(drawn_at, [None] * 2, 100, 0, False)
        assert lines[0].plain.endswith(f" answer (ln p{said})" if said else " answer")
        assert ("answer", "id", "token", f"ln p{said} before", f"ln p{said} after") in list(rows(run))
        assert f"KL to the opened model{said}, nats a token" in run_text(run)
        assert f"(ln p of the answer{said}, in nats)" in run_text(run)


def test_the_clip_is_described_as_it_is_wherever_it_is_set() -> None:
    (key,) = (key for key in KEYS if key.id == "reward_clip")
    parser = argparse.ArgumentParser()
    _add_options(parser)
    assert all(CLIP in text for text in (key.tooltip, ASKED["clip"], " ".join(parser.format_help().split())))


def test_columns() -> None:
    assert columns([0, 1, 2, 4], 4, 1) == ["▁▂▄█"]
    assert columns([0, 4], 6, 2) == ["   ███", "▁▁▁███"]
    assert columns([1, 2, 3], 2, 1) == ["▅█"] and columns([], 4, 2) == [] and columns([1.0], 0, 1) == []
    assert columns([0.5], 1, 1, least=1) == ["▄"] and columns([-1, 1], 2, 1) == ["▁█"]


async def test_the_title_says_that_esc_stops_only_where_it_does(tiny: str) -> None:
    async with rewarding(tiny) as (app, pilot, screen):
        for goal, stops in ((screen.at + 10, True), (screen.at + 1, False), (screen.at, False)):
            screen.goal = goal
            screen.progress.start("taking a step")
            screen.progress._since -= SHOWN_AFTER
            assert ("Esc stops" in screen.subject()) is stops and "taking a step" in screen.subject()
        await pilot.press("escape")  # as the title says, it does not stop but closes
        await until(pilot, lambda: app.screen is app.lab_screen)
