"""An answer that arrives after its screen has closed, after a newer one, or from another model."""

from __future__ import annotations

import dataclasses
import threading
from types import SimpleNamespace
from typing import Any

import fake_run
import pytest
from fake_engine import FakeEngine
from helpers import answered, make_app, until, workers_done
from test_closing_keys import quiet
from test_inside_screen import InsideEngine
from test_inside_screen import opened as inside
from test_questions import Riddle
from test_runs_screen import ScreenApp, set_field
from test_token_tools import instruments, ready
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from tests import HANG
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Request
from tui_llm.instruments.lens.question import LensQuestion
from tui_llm.instruments.neighbours.question import NeighboursQuestion
from tui_llm.instruments.sft.question import InstructQuestion
from tui_llm.instruments.swap.question import SwapQuestion
from tui_llm.llm.data.instruction_pairs import Pair
from tui_llm.tour.step import Ask
from tui_llm.training.run.foreign import foreign_curves
from tui_llm.training.run.snapshot import RunReader, RunSnapshot
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.inside.neighbours import NeighbourTable
from tui_llm.tui.instruments.sft.pairs import InstructionPairsScreen, PairsEditor
from tui_llm.tui.instruments.sft.sft import SftScreen
from tui_llm.tui.instruments.swap import SwapScreen
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.runs import new_run
from tui_llm.tui.runs.new_run import NewRunScreen
from tui_llm.tui.runs.run_watcher import RunWatcher


class Held:
    """A function that waits, once it was called with what `holds` is true for, until `go` is set."""

    def __init__(self, function: Any, holds: Any = lambda *_: True) -> None:
        self.function, self.holds = function, holds
        self.waits, self.go = threading.Event(), threading.Event()

    def __call__(self, *given: Any) -> Any:
        if self.holds(*given):
            self.waits.set()
            assert self.go.wait(HANG)
        return self.function(*given)


def said(app: LabApp) -> str:
    return "\n".join(one.message for one in app._notifications)


async def everything_answered(pilot: Pilot[None], app: LabApp) -> None:
    """Waits until the engine thread has done all that it was asked for before, and the app has taken the answers."""
    engine, got = app.lab_screen.context.client._engine, []
    assert isinstance(engine, FakeEngine)
    engine.answers[Riddle] = lambda _: "last"
    app.lab_screen.context.questions.ask(None, Riddle(Request()), got.append)
    await until(pilot, lambda: got)
    await pilot.pause()


# ── Fine-tune, and the tour ──────────────────────────────────────────────────────────────────────────────────────


async def test_closing_the_tour_drops_its_own_tuning_and_not_what_the_screen_saves() -> None:
    engine = FakeEngine()
    held = Held(lambda question: SimpleNamespace(folder=f"/models/{question.name}", name=question.name or "assistant"))
    engine.answers[InstructQuestion] = held
    app = make_app(engine)
    try:
        async with app.run_test(size=(120, 40)) as pilot:
            lab = app.lab_screen
            await answered(pilot, lab)
            lab.tour.toggle()
            lab.tour._ask_pairs(Ask("pairs", "Pairs", "", "a => b", "pairs"))
            await until(pilot, lambda: isinstance(app.screen, InstructionPairsScreen) and app.screen.query(PairsEditor))
            await pilot.press("ctrl+s")
            await until(pilot, held.waits.is_set)
            screen = quiet(SftScreen(lab.context))
            app.push_screen(screen)
            await until(pilot, lambda: app.screen is screen and screen.is_mounted)
            screen.saver.save(
                lambda name: InstructQuestion(Request(), (Pair("a", "b"),), 1, 1e-3, name), lambda _: "1 step"
            )
            await until(pilot, lambda: isinstance(app.screen, AskScreen))
            await pilot.press(*"mine", "enter")
            await until(pilot, lambda: app.screen is screen and screen.progress.doing)
            lab.tour.toggle()
            held.go.set()
            await everything_answered(pilot, app)
            assert screen.saver.folder == "/models/mine" and "saved 1 step as /models/mine" in said(app)
            assert engine.opened == ["nano"], "the tour opens what it has tuned"
    finally:
        held.go.set()


# ── opening a model ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_esc_cancels_the_model_that_opens_and_the_one_after_it() -> None:
    engine = FakeEngine()
    held = Held(engine.open, lambda model: model == "first")
    engine.open = held  # type: ignore[method-assign]
    app = make_app(engine)
    try:
        async with app.run_test(size=(100, 30)) as pilot:
            lab = app.lab_screen
            await answered(pilot, lab)
            await pilot.press("escape")
            lab.models.open("first")
            await until(pilot, lambda: held.waits.is_set() and lab.top_line.busy)
            lab.models.open("second")
            await pilot.press("escape")
            assert "cancelled; the open model stays open" in said(app)
            held.go.set()
            await everything_answered(pilot, app)
            assert engine.opened == ["nano", "first", "nano"] and lab.context.model == "nano"
    finally:
        held.go.set()


async def swap_screen(pilot: Pilot[None], app: LabApp) -> SwapScreen:
    """Opens Swap on the first token and waits for its candidates."""
    await ready(pilot, app, "1", "S")
    await until(pilot, lambda: isinstance(app.screen, SwapScreen) and app.screen.reading)
    assert isinstance(app.screen, SwapScreen)
    return app.screen


async def test_swap_asks_another_model_for_its_candidates() -> None:
    engine = FakeEngine()
    instruments(engine)
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        screen = await swap_screen(pilot, app)
        engine.gate.clear()
        lab.readings.request()  # keeps the engine's thread busy
        await pilot.press("enter")
        lab.context.client.open("other")  # as following a run does: it is opened before the question is answered
        engine.gate.set()
        await until(pilot, lambda: lab.context.model == "other")
        await everything_answered(pilot, app)
        assert app.screen is screen and not lab.lab.continuation and lab.lab.prompt == "The cat sat on the"
        assert screen.reading is not None and screen.reading.weights.name == "other"
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is lab and lab.lab.continuation)


async def test_a_replacement_that_is_typed_before_the_candidates_are_there_is_not_lost() -> None:
    engine = FakeEngine()
    instruments(engine)
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await ready(pilot, app, "1")
        engine.gate.clear()
        lab.readings.request()  # keeps the engine's thread busy
        await pilot.press("S", "t")
        assert isinstance(app.screen, AskScreen)
        await pilot.press("x", "enter")
        screen = app.screen
        assert isinstance(screen, SwapScreen) and screen.reading is None
        engine.gate.set()
        await until(pilot, lambda: app.screen is lab and lab.lab.continuation)


async def test_a_swap_that_another_model_made_is_not_taken() -> None:
    """The lab knows of that model already, the screen not yet."""
    engine = FakeEngine()
    instruments(engine)
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        screen, taken = await swap_screen(pilot, app), []
        assert isinstance(lab.context.weights, Weights)
        screen.take = taken.append
        made = engine.answers[SwapQuestion](SwapQuestion(screen.request, id=3))
        lab.context.weights = dataclasses.replace(lab.context.weights, name="other")
        screen._done(made)
        await pilot.pause()
        assert app.screen is screen and not taken
        screen.reopened(lab.context.weights)
        screen._done(made)
        await until(pilot, lambda: app.screen is lab)
        assert taken == [made]


# ── Inside ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_neighbours_are_those_of_the_token_that_a_late_lens_selects() -> None:
    engine = InsideEngine()
    held: Any = Held(engine.lens, lambda question: question.number == 3)
    engine.answers[LensQuestion] = held
    app = make_app(engine)
    try:
        async with app.run_test(size=(80, 24)) as pilot:
            screen = await inside(pilot, app)
            await pilot.press("2")
            await until(
                pilot, lambda: screen.place is not None and any(isinstance(q, LensQuestion) for q in engine.questions)
            )
            await everything_answered(pilot, app)
            await pilot.press("left")
            await until(pilot, held.waits.is_set)
            await pilot.press("3")
            asked: Any = app.lab_screen.context.questions.pending[NeighboursQuestion].question
            assert screen.place is not None and asked.id == screen.place.tokens[4].id
            held.go.set()
            await everything_answered(pilot, app)
            await everything_answered(pilot, app)  # what the first answers asked for
            found = screen.query_one(NeighbourTable).neighbours
            assert screen.place.number == 3 and found is not None
            assert found.token.id == screen.place.token.id != asked.id
    finally:
        held.go.set()


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class WatchApp(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[RunSnapshot | None, tuple[RunSnapshot, ...]]] = []

    def compose(self) -> ComposeResult:
        yield RunWatcher()

    def on_run_watcher_updated(self, message: RunWatcher.Updated) -> None:
        self.seen.append((message.snapshot, message.others))


async def test_a_run_to_compare_is_read_by_one_thread_at_a_time_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    first, compared, second = (fake_run.make(name, done=20) for name in ("first", "compared", "second"))
    begun, both = threading.Event(), threading.Event()  # the first thread reads; the second waits for it, or reads too

    class Reader(RunReader):
        inside = most = 0

        def read(self) -> RunSnapshot:
            self.inside += 1
            self.most = max(self.most, self.inside)
            begun.set()
            if self.inside > 1:
                both.set()
            assert both.wait(HANG)
            try:
                return super().read()
            finally:
                self.inside -= 1

    class Noticed:
        """A lock that notices when a second thread wants it."""

        def __init__(self) -> None:
            self.lock, self.wanted = threading.Lock(), 0

        def __enter__(self) -> None:
            self.wanted += 1
            if self.wanted > 1:
                both.set()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    readers: list[Reader] = []
    monkeypatch.setattr(foreign_curves, "snapshot_reader", lambda run: readers.append(Reader(run)) or readers[-1])
    app = WatchApp()
    try:
        async with app.run_test() as pilot:
            watcher = app.query_one(RunWatcher)
            watcher.follow(first)
            await workers_done(pilot)
            watcher._comparing = Noticed()  # type: ignore[assignment]
            watcher.compare([compared])
            await until(pilot, begun.is_set)
            watcher.follow(second)
            await workers_done(pilot)
            await pilot.pause()
            assert [reader.most for reader in readers] == [1]
            snapshot, others = app.seen[-1]
            assert snapshot is not None and snapshot.name == "second"
            assert [other.name for other in others] == ["compared"]
            assert others[0].last is not None and others[0].last.step == 20
    finally:
        both.set()


@pytest.mark.parametrize("tokenizer", ["char", "gpt2"])
async def test_an_older_check_of_a_new_run_does_not_win(tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vocabulary `char` is made of the text, so that another text is checked again. Else the first check counts."""

    def examine(_given: object, _preset: str, corpora: list[str]) -> tuple[None, None, dict[str, str]]:
        return None, None, {"tokenizer": " ".join(corpora)}

    held = Held(examine, lambda _given, _preset, corpora: corpora == ["old.txt"])
    monkeypatch.setattr(new_run, "SETTLE", 1e-3)
    monkeypatch.setattr(new_run, "examine", held)
    app = ScreenApp(NewRunScreen("first.txt"))
    try:
        async with app.run_test(size=(100, 30)) as pilot:
            form = app.shown
            assert isinstance(form, NewRunScreen)
            await until(pilot, lambda: form._examined_problems)
            set_field(app, "corpus", "old.txt")
            set_field(app, "tokenizer", tokenizer)
            await until(pilot, held.waits.is_set)
            set_field(app, "corpus", "new.txt")
            if tokenizer == "char":
                await until(pilot, lambda: form._examined_problems == {"tokenizer": "new.txt"})
            await pilot.pause()
            held.go.set()
            await workers_done(pilot)
            await pilot.pause()
            wins = "new.txt" if tokenizer == "char" else "old.txt"
            assert form._examined_problems == {"tokenizer": wins}
    finally:
        held.go.set()
