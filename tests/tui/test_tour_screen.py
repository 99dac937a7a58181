"""The tour in the app: a scripted learner presses the keys that the tour names."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
from fake_engine import HOSTILE, FakeEngine
from fake_run import add, alive, make, sample
from helpers import answered, drawn, make_app, unsafe, until
from textual.pilot import Pilot
from textual.widgets._toast import Toast, ToastRack

from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.policy import PolicyRecipe
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.pairs.question import Pairs, PairsQuestion
from tui_llm.instruments.prefer.question import PreferQuestion
from tui_llm.instruments.reward.question import RewardGroup, RewardQuestion, RewardRun, RewardStep, ScoredAnswer
from tui_llm.instruments.scratch.answer import scratch
from tui_llm.instruments.scratch.question import ScratchQuestion
from tui_llm.instruments.sft.question import InstructQuestion
from tui_llm.tour.checks_text import WAIT
from tui_llm.tour.lesson_file import find, read
from tui_llm.tour.numbers import table_logits
from tui_llm.tour.tour import Tour, path
from tui_llm.training.run.run import Run
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.prefer.prefer import PreferScreen
from tui_llm.tui.instruments.reward.reward import RewardScreen
from tui_llm.tui.instruments.sft.pairs import InstructionPairsScreen
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.doubled_space import DoubledSpaceScreen
from tui_llm.tui.kit.widgets.prompt import PromptEditor
from tui_llm.tui.lab.panes.tokens import VIEWS, TokensPane
from tui_llm.tui.lab.tour import TourController
from tui_llm.tui.runs.run_watcher import RunWatcher
from tui_llm.tui.state.messages import Answered
from tui_llm.tui.tour.pane import TourPane

ALL = {(step.name, at) for step in Tour().steps for at in range(len(step.parts))}


class Learner:
    """Presses keys, and waits until the tour reports that its task is done."""

    def __init__(self, pilot: Pilot[None], app: LabApp) -> None:
        self.pilot, self.app, self.lab = pilot, app, app.lab_screen

    @property
    def tour(self) -> Tour:
        assert self.lab.tour.tour is not None
        return self.lab.tour.tour

    async def until_done(self, step: str, part: int) -> None:
        try:
            await until(self.pilot, lambda: self.lab.tour.check() or (step, part) in self.tour.done)
        finally:
            if (step, part) not in self.tour.done:
                print(f"{step} {part}: {self.tour.lacks}")

    def shows(self, name: str) -> bool:
        """Whether the screen of that `tour_name` is on top, and nothing is asked any more."""
        screen = self.app.screen
        here = isinstance(screen, BaseScreen) and screen.tour_name == name
        return here and screen.is_mounted and not self.lab.context.questions.pending

    async def at(self, step: str, part: int, *keys: str) -> None:
        """Does part number `part` of `step` with `keys`.

        `wait` waits for the reading, `@name` for that screen and the answers to its questions: until then some keys do
        nothing. `=text` types it, `[*9` presses 9 times.
        """
        tour = self.tour
        assert (tour.steps[tour.step].name, tour.part) == (step, part), (
            tour.steps[tour.step].name,
            tour.part,
            tour.seen,
        )
        self.lab.tour.check()
        assert (step, part) in tour.done or tour.lacks, "what is missing is said"
        for key in keys:
            if key == "wait":
                await answered(self.pilot, self.lab)
            elif key.startswith("@"):
                await until(self.pilot, lambda name=key[1:]: self.shows(name))
            elif key.startswith("="):
                editor = self.app.screen.query_one(PromptEditor)
                editor.set_text(key[1:])
            elif "*" in key:
                name, times = key.split("*")
                for _ in range(int(times)):
                    self.app.simulate_key(name)
                await self.pilot.pause()
            else:
                await self.pilot.press(key)
        await self.until_done(step, part)
        assert not unsafe(drawn(self.app))
        assert any(TourPane.__name__ == type(child).__name__ for child in self.app.screen.children)


async def go_through(learner: Learner, own: str) -> None:
    """Goes through all twelve steps, with `own` as the learner's text."""
    at, pilot = learner.at, learner.pilot
    await at("labels", 0, "=" + own, "wait", "escape")
    await at("labels", 1, "f5", "=7", "enter")
    await at("labels", 2, "1", "E")
    await at("labels", 3, "f5", "enter")
    await at("pieces", 0, "escape", "1", "C")
    await at("pieces", 1, "escape", "i", "=" + own + " zxqvwkj", "wait", "escape")
    await at("pieces", 2, "1", "M", "@merges", "home")
    await at("pieces", 3, "escape", "i", "=" + own + " strawberry", "wait", "escape", "1", "L")
    views = VIEWS.index("ids") - VIEWS.index(learner.lab.query_one(TokensPane).view)
    await at("vectors", 0, "escape", "1", *["b"] * views, "left", "wait")
    await at("vectors", 1, "A", "n")
    await at("vectors", 2, "slash", "=#100", "enter")
    await at("softmax", 0, "escape", "escape", "2", "right_square_bracket*2", "right_curly_bracket*6", "C", "wait")
    await at("softmax", 1, "X")
    await at("softmax", 2, "i", "=mat=3.2 rug=3.2 moon=-2.1", "escape")
    await at("surprise", 0, "escape", "2", "home", "enter", "wait", "3")
    await at("surprise", 1, "t", "= zebra crossing", "enter")
    await at("surprise", 2, "3", "p")
    await at("learn", 0, "P")
    await at(
        "learn", 1, "i", "=" + own + ", and then", "wait", "escape", "t", "= the", "enter", "wait", "3", "L", "space"
    )
    await at("learn", 2, "u")
    run = make("tales", steps=100, done=0, state="running", unigram_entropy=3.1, bigram_entropy=2.2)
    with alive(run):
        await watch(learner, run)
        await at("loop", 0, "escape", "4")
        add(run, 1, 10)
        sample(run, 10, "Onc \x1b[31m[/]")
        await at("loop", 1, "4")
        add(run, 11, 20, val_loss=2.0)
        await at("loop", 2, "4")
        await at("loop", 3, "4", "h")
    await at("writing", 0, "escape", "5", "left_square_bracket*10", "g")
    await at("writing", 1, "right_square_bracket*5", "g")
    await at("writing", 2, "D", *["right_square_bracket"] * 5)
    await at("writing", 3, "escape", "H")
    await at("writing", 4, "escape", "left_curly_bracket", "wait")
    await at("writing", 5, "X", "i", "=" + table_logits(), "escape", "T")
    await at("inside", 0, "escape", "escape", "c", "A")
    await at("inside", 1, "l")
    await at("inside", 2, "escape", "escape", "semicolon", "@why", "enter")
    await at("inside", 3, "escape", "escape", "exclamation_mark", "@ablate", "enter")
    await at("inside", 4, "escape", "0")
    await at("inside", 5, "escape", "i", "=" + own.replace(own.split()[0], "But") + ", and then", "wait", "escape")
    await at("assistant", 0, "i", "=What is your name?", "wait", "escape", "left_square_bracket*20", "space")
    await at("assistant", 1, "f5", "=What is your name? => My name is Nano.", "ctrl+s")
    await until(pilot, lambda: learner.lab.weights is not None and learner.lab.weights.name == "assistant")
    await at("assistant", 2, "c", "space")
    await at("preferences", 0, "i", "=" + own, "wait", "escape", "right_square_bracket*10", "j")
    screen = learner.app.screen
    assert isinstance(screen, PreferScreen)
    await pilot.press("left")
    await until(pilot, lambda: screen.chosen is not None)
    one, controller = screen.preferred, learner.lab.tour
    assert one is not None and (learner.tour.steps[learner.tour.step].name, learner.tour.part) == ("preferences", 1)
    six = dataclasses.replace(one, ranked=one.ranked * 6, changes=one.changes * 6)  # as if five more were ranked
    controller.answered(Answered(PreferQuestion(Request()), six))
    await learner.until_done("preferences", 1)
    await pilot.press("escape", "dollar_sign")
    await until(pilot, lambda: isinstance(learner.app.screen, RewardScreen) and learner.app.screen.run is not None)
    rewarded(controller, "contains:happy", 5)
    await learner.until_done("reward", 0)
    rewarded(controller, "count:happy", 8)
    await learner.until_done("reward", 1)
    await at("reward", 2, "f5", "enter")
    assert learner.tour.finished and learner.tour.done == ALL


def rewarded(controller: TourController, spec: str, count: int) -> None:
    """Lets the tour see steps on a rule, in which the mean reward rises and the KL too."""
    weights = controller.context.weights
    assert weights is not None
    steps = tuple(
        RewardStep(at + 1, spec, PolicyRecipe(), at / 8, 0.1, at / 4, 8, 0.5, learned=True) for at in range(count)
    )
    answer = ScoredAnswer((), " happy [/]\x1b[31m happy", 1, False, 1.0, 0.0, ())
    group = RewardGroup(steps[-1], (answer,))
    run = RewardRun(RewardQuestion(Request()), weights, "x", steps, group, False, 0, 0, 0)
    controller.answered(Answered(run.question, run))


async def watch(learner: Learner, run: Run) -> None:
    watcher = learner.lab.query_one(RunWatcher)
    await until(learner.pilot, lambda: not watcher._reader or watcher.run_watched is None)
    watcher.follow(run)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=str)
async def test_a_learner_goes_through_all_twelve_steps_on_nano(size: tuple[int, int]) -> None:
    engine = PipelineEngine("cpu")
    app = LabApp(lambda: engine, prompt="", tour=True)
    async with app.run_test(size=size) as pilot:
        lab = app.lab_screen
        await until(pilot, lambda: lab.weights is not None and lab.tour.tour is not None)
        await go_through(Learner(pilot, app), "My old cat [red] sat on the mat")


# ── on the fake engine ───────────────────────────────────────────────────────────────────────────────────────────


def panes(app: LabApp) -> list[TourPane]:
    return [pane for screen in app.screen_stack for pane in screen.query(TourPane)]


async def test_the_tour_continues_where_it_was_closed() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        assert not lab.one_at_a_time
        await pilot.press("f5", "f2")  # F5 without a tour shows a message
        learner = Learner(pilot, app)
        assert lab.one_at_a_time and lab.prompt.has_focus  # the rest of the screen is narrower, but otherwise unchanged
        await learner.at("labels", 0, "escape")
        await learner.at("labels", 1, "f5", "=4", "enter")
        assert "labels for free (3/4)" in "\n".join(drawn(app)).lower()
        await pilot.press("f2")
        await pilot.pause()
        assert lab.tour.tour is None and not panes(app) and not lab.one_at_a_time
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("f2")
        await pilot.pause()
        tour = app.lab_screen.tour.tour
        assert tour is not None and (tour.step, tour.part) == (0, 2)
        await pilot.press("f4", "f4", "f3")
        assert (tour.step, tour.part) == (0, 3)
        await pilot.press("f3", "f3", "f3", "f3")
        assert (tour.step, tour.part) == (0, 0)


@pytest.mark.parametrize("key", ["f4", "f2"])
async def test_the_question_of_a_step_closes_with_it(key: str) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("f2")
        learner = Learner(pilot, app)
        await learner.at("labels", 0, "escape")
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(key)
        await until(pilot, lambda: app.screen is lab)
        assert lab.tour.tour is None if key == "f2" else learner.tour.part == 2


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (20, 5), (1, 1)], ids=str)
async def test_hostile_text_at_every_size(size: tuple[int, int]) -> None:
    app = make_app(FakeEngine(hostile=True), prompt="".join(HOSTILE))
    async with app.run_test(size=size) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("f2", "escape")
        await pilot.pause()
        learner = Learner(pilot, app)
        await learner.until_done("labels", 0)
        await pilot.press("f5")
        app.screen.query_one(PromptEditor).set_text("".join(HOSTILE))
        await pilot.press("enter")
        await pilot.pause()
        lab.tour.check()
        assert learner.tour.part == 1 and "no whole number" in learner.tour.lacks
        for _ in range(50):
            await pilot.press("f4")
            assert not unsafe(drawn(app))
        assert learner.tour.finished
        await pilot.resize_terminal(100, 30)
        lab.tour.check()
        await pilot.pause()
        assert "The end" in "\n".join(drawn(app))


@pytest.mark.parametrize(
    "kept", [b"\xff{", b"[]", b'{"version": 1, "step": "text", "part": 1e400, "done": []}', b"[" * 5000]
)
async def test_progress_that_cannot_be_read_is_kept_aside(kept: bytes) -> None:
    path().parent.mkdir(parents=True, exist_ok=True)
    path().write_bytes(kept)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("f2")
        await until(pilot, lambda: any("tour-damaged.json" in note.message for note in app._notifications))
    assert path().with_name("tour-damaged.json").read_bytes() == kept and Tour().load() is False and path().exists()


async def test_an_app_that_closes_does_no_part_of_the_tour(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    close_all = app._close_all

    async def closing() -> None:
        app.lab_screen.set_focus(None)  # as when the prompt is removed: nobody is typing any more
        app.lab_screen.tour.check()
        await close_all()

    monkeypatch.setattr(app, "_close_all", closing)
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("f2")
        assert isinstance(app.focused, PromptEditor)
    assert Tour().load() is False


async def test_the_tour_reports_what_is_missing_and_failed_answers() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("f2")
        await pilot.pause()
        assert "you are typing; Esc" in "\n".join(drawn(app))
        tour = lab.tour.tour
        assert tour is not None
        while tour.here is None or tour.here.ask is None or tour.here.ask.form != "pairs":
            await pilot.press("f4")

        def fails(_question: object) -> object:
            raise UserError("[red]no memory\x1b[31m")

        engine = lab.context.client._engine
        assert isinstance(engine, FakeEngine)
        engine.answers[InstructQuestion] = fails
        await pilot.press("f5")
        assert isinstance(app.screen, InstructionPairsScreen)
        editor = app.screen.query_one(PromptEditor)
        editor.set_text("no arrow")
        await pilot.press("ctrl+s")  # refused with a message
        await pilot.pause()
        assert isinstance(app.screen, InstructionPairsScreen) and "is not a pair" in "\n".join(drawn(app))
        editor.set_text("a => b")
        await pilot.press("end", "enter", *"c => d")
        assert editor.prompt_text == "a => b\nc => d"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "no memory" in (lab.tour.check() or tour.lacks))
        assert not unsafe(drawn(app)) and len(engine.questions[-1].pairs) == 2  # type: ignore[attr-defined]
        await pilot.press("f5", "escape")
        assert app.screen is lab


async def test_the_tour_stands_beside_every_screen_and_modal_window() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("f2", "escape", "f1")
        await pilot.pause()
        assert "Tour 1/12" in "\n".join(drawn(app))
        await pilot.press("escape", "ctrl+p")
        await pilot.pause()
        assert len(panes(app)) == 2  # the tour stays next to the palette too
        await pilot.press("escape", "X")
        await pilot.pause()
        assert "Tour 1/12" in "\n".join(drawn(app)) and len(panes(app)) == 2
        await pilot.press("f2")
        await pilot.pause()
        assert not panes(app)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=str)
async def test_notifications_stand_beside_the_tour(size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size, notifications=True) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("f2", "escape")
        app.lab_screen.notify("said")
        await until(pilot, lambda: any(toast.region for toast in app.screen.query(Toast)))
        (pane,) = panes(app)
        assert all(not pane.region.overlaps(toast.region) for toast in app.screen.query(Toast))
        await pilot.press("f2")
        await pilot.pause()
        rack = app.screen.query_one(ToastRack).styles
        assert (rack.margin, rack.padding) == ((0, 0, 1, 0), (0, 0, 0, 0))


# ── the two further lessons ──────────────────────────────────────────────────────────────────────────────────────


async def tokens_lesson(learner: Learner) -> None:
    at = learner.at
    await at("space", 0, "=The cat sat on the", "wait", "escape")
    await at("space", 1, "2", "i", "space", "escape", "wait")
    await at("words", 0, "2", "i", "=king king", "wait", "escape")
    views = VIEWS.index("ids") - VIEWS.index(learner.lab.query_one(TokensPane).view)
    await at("words", 1, "1", *["b"] * views)
    await at("words", 2, "f5", "=no", "enter")
    await at("words", 3, "i", "=king King KING", "wait", "escape")
    await at("digits", 0, "i", "=12345 + 67890 =", "wait", "escape")
    await at("digits", 1, "f5", "=80,235", "enter")
    await at("digits", 2, "5", "space")
    await at("letters", 0, "escape", "i", "=strawberry", "wait", "escape", "1", "L")
    await at("letters", 1, "f5", "=3", "enter")
    await at("bytes", 0, "escape", "i", "=naïve café", "wait", "escape")
    await at("bytes", 1, "1", "C")
    await at("special", 0, "escape", "i", "=Hi<|endoftext|>Bye", "wait", "escape")
    await at("special", 1, "x", "wait")
    assert learner.tour.finished


async def loss_lesson(learner: Learner) -> None:
    at = learner.at
    run = make("tales", steps=400, done=0, state="running", unigram_entropy=3.1, bigram_entropy=2.2)
    with alive(run):
        await watch(learner, run)
        await at("start", 0, "escape", "4")
        await at("start", 1, "f5", "=5.55", "enter")
        add(run, 1, 50, val_loss=2.5)
        await at("first", 0, "4")
        add(run, 51, 140, val_loss=1.5)
        await at("first", 1)
        await at("first", 2, "f5", "=3.0", "enter")
        sample(run, 140, "Once upon a time")
        add(run, 141, 200, val_loss=1.3)
        run.write_status("running", "", step=200, steps=400)
        await at("two", 0, "4", "a")
        await at("two", 1, "f5", "=Validation", "enter")
        add(run, 201, 400, val_loss=1.1)
        run.write_status("finished", "", step=400, steps=400)
    await at("end", 0, "l")
    await at("end", 1, "f5", "=no", "enter")
    await at("meaning", 0, "4", "T")
    await at("meaning", 1, "f5", "=140: 1.5", "enter")
    assert learner.tour.finished


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=str)
@pytest.mark.parametrize(
    ("name", "go"), [("tokens", tokens_lesson), ("loss-curve", loss_lesson)], ids=["tokens", "loss-curve"]
)
async def test_a_learner_goes_through_a_further_lesson(name: str, go: Any, size: tuple[int, int]) -> None:
    engine = PipelineEngine("cpu")
    app = LabApp(lambda: engine, prompt="", lesson=read(find(name)))
    async with app.run_test(size=size) as pilot:
        lab = app.lab_screen
        await until(pilot, lambda: lab.weights is not None and lab.tour.tour is not None)
        assert "Lesson 1/" in "\n".join(drawn(app)) and "New here" not in "\n".join(drawn(app))
        await go(Learner(pilot, app))


# ── step 5.2, and the line for newcomers ─────────────────────────────────────────────────────────────────────────


async def test_step_5_2_takes_no_doubled_space() -> None:
    engine = PipelineEngine("cpu")
    app = LabApp(lambda: engine, prompt="The cat sat on the", tour=True)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape")
        tour = lab.tour.tour
        assert tour is not None
        at = [step.name for step in tour.steps].index("surprise")
        while (tour.step, tour.part) != (at, 1):
            await pilot.press("f4")
        await pilot.press("3", "t")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press("space", *"purple", "enter")
        await until(pilot, lambda: isinstance(app.screen, DoubledSpaceScreen))
        lab.tour.check()
        assert tour.lacks == "a window is open: answer it, or Esc cancels"
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.screen is lab)
        lab.target.set(Target(text="  purple"))
        await answered(pilot, lab)
        lab.tour.check()
        assert (tour.step, tour.part) == (at, 1) and "doubled space" in tour.lacks
        await pilot.pause()
        assert "··purple" in "\n".join(drawn(app))
        await pilot.press("s")  # as the tour says
        await answered(pilot, lab)
        await Learner(pilot, app).until_done("surprise", 1)


LINE = "New here? F2: the tour"


async def test_a_newcomer_is_told_of_the_tour_until_it_is_used() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        shown = "\n".join(drawn(app))
        assert LINE in shown and "F2 tour" in drawn(app)[-1]
        await pilot.press("escape", "2")
        await pilot.pause()
        assert f"{LINE} (Esc hides this)" in "\n".join(drawn(app)) and "F2 tour" in drawn(app)[-1]
        await pilot.press("f2")
        await pilot.pause()
        assert LINE not in "\n".join(drawn(app))
        await pilot.press("f2")
        await pilot.pause()
        assert LINE not in "\n".join(drawn(app))
    app = make_app()  # the next start
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        assert LINE not in "\n".join(drawn(app))


async def test_a_newcomer_can_dismiss_the_line() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape")
        await pilot.pause()
        assert LINE in "\n".join(drawn(app))
        await pilot.press("escape")
        await pilot.pause()
        assert LINE not in "\n".join(drawn(app))
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        assert LINE not in "\n".join(drawn(app))


# ── answers about another text, and a tour that is opened again ──────────────────────────────────────────────────


async def test_answers_about_the_previous_text_do_not_count() -> None:
    engine, gate = FakeEngine(), threading.Event()
    app = make_app(engine)

    def pairs(question: PairsQuestion) -> Pairs:
        assert engine.weights is not None
        if question.request.prompt.startswith("Once"):
            gate.wait()
        tokens = engine.read(dataclasses.replace(question.request, scores=True))
        return Pairs(engine.weights, tokens.tokens.count, 0, tokens.fed, tokens.tokens.tokens, tokens.scores[1:], 1.0)

    engine.answers[PairsQuestion] = pairs
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("f2", "escape")
        learner = Learner(pilot, app)
        await learner.until_done("labels", 0)
        await pilot.press("1", "E")
        await until(pilot, lambda: PairsQuestion in lab.tour.facts().answers)
        await pilot.press("escape", "i")
        lab.query_one(PromptEditor).set_text("Once upon a time")
        await answered(pilot, lab)
        try:
            await pilot.press("escape", "f5")
            app.screen.query_one(PromptEditor).set_text("3")
            await pilot.press("enter", "1", "E")
            await until(pilot, lambda: lab.tour.check() or learner.tour.lacks == WAIT or learner.tour.part != 2)
            assert learner.tour.part == 2
        finally:
            gate.set()
        await learner.until_done("labels", 2)
        assert "4 tokens make 3 pairs (you were right)" in learner.tour.seen


async def test_a_changed_logit_counts_after_the_tour_was_opened_again() -> None:
    engine = FakeEngine()
    engine.answers[ScratchQuestion] = scratch
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("f2", "escape")
        learner = Learner(pilot, app)
        at = [step.name for step in learner.tour.steps].index("softmax")
        while (learner.tour.step, learner.tour.part) != (at, 2):
            await pilot.press("f4")
        await pilot.press("X")
        await until(pilot, lambda: ScratchQuestion in lab.tour.facts().answers)
        await pilot.press("escape", "f2", "f2")
        learner = Learner(pilot, app)
        await learner.at("softmax", 2, "i", "=mat=3.2 rug=3.2 moon=-2.1", "escape")
