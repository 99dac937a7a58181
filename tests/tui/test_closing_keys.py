"""Every screen shows how it is closed, and closes only once: each closing key is sent twice before the app has handled
either."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_run
import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, until
from textual import events
from textual.app import App, ComposeResult
from textual.command import CommandList
from textual.keys import key_to_character
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import OptionList

from tui_llm import tui
from tui_llm.common.errors import UserError
from tui_llm.facts.request import Question, Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.facts.tokens import Token
from tui_llm.instruments.why.question import NeuronsQuestion
from tui_llm.training.run.foreign.foreign_run import ForeignRun
from tui_llm.training.run.step_rows import ReplayedStep, StepRow
from tui_llm.tui.app import LabApp
from tui_llm.tui.help import HelpScreen
from tui_llm.tui.instruments.backward import BackwardScreen
from tui_llm.tui.instruments.block import BlockScreen
from tui_llm.tui.instruments.chat import ChatScreen
from tui_llm.tui.instruments.compare_models import CompareModelsScreen
from tui_llm.tui.instruments.draws.draw import DrawScreen
from tui_llm.tui.instruments.draws.draw_many import DrawManyScreen
from tui_llm.tui.instruments.inside.inside import InsideScreen
from tui_llm.tui.instruments.learn.learn import LearnScreen
from tui_llm.tui.instruments.lens_grid import LensGridScreen
from tui_llm.tui.instruments.patch.patch import PatchScreen
from tui_llm.tui.instruments.sampler import SamplerScreen
from tui_llm.tui.instruments.scratch import ScratchScreen
from tui_llm.tui.instruments.sft.pairs import InstructionPairsScreen
from tui_llm.tui.instruments.sft.sft import SftScreen
from tui_llm.tui.instruments.swap import SwapScreen
from tui_llm.tui.instruments.temperatures import TemperaturesScreen
from tui_llm.tui.instruments.tree.tree import TreeScreen
from tui_llm.tui.instruments.why.neurons import NeuronsScreen
from tui_llm.tui.keymap import OPENERS
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.confirm import ConfirmScreen
from tui_llm.tui.kit.doubled_space import DoubledSpaceScreen
from tui_llm.tui.kit.palette import Palette
from tui_llm.tui.lab.lab import LabScreen
from tui_llm.tui.models.info import ModelInfoScreen
from tui_llm.tui.models.models import ModelsScreen
from tui_llm.tui.runs.alarms import AlarmsScreen
from tui_llm.tui.runs.batch import BatchScreen
from tui_llm.tui.runs.branch import BranchScreen
from tui_llm.tui.runs.compare import CompareScreen
from tui_llm.tui.runs.curves.screen import CurvesScreen
from tui_llm.tui.runs.find_lr import FindRateScreen
from tui_llm.tui.runs.foreign import ForeignScreen
from tui_llm.tui.runs.gauges import MachineScreen
from tui_llm.tui.runs.head_history import RunHeadsScreen
from tui_llm.tui.runs.log import LogScreen
from tui_llm.tui.runs.new_ladder import NewLadderScreen
from tui_llm.tui.runs.new_run import NewRunScreen
from tui_llm.tui.runs.pin_history import LearnedScreen
from tui_llm.tui.runs.runs import RunsScreen
from tui_llm.tui.runs.samples import SamplesScreen
from tui_llm.tui.runs.step import ReplayScreen
from tui_llm.tui.runs.step_row import StepRowScreen

SIZES = [(80, 24), (60, 24), (60, 16)]


def a_row() -> tuple[ReplayedStep, StepRow]:
    """A recomputed step, and its only row."""
    row = StepRow(0, tuple(Token(id, b"a", "a") for id in range(3)), (1.0, 2.0))
    return ReplayedStep(7, 0, 1.5, 1.0, 1e-3, None, (row,)), row


def quiet(screen: Any) -> Any:
    """A screen that asks for something at once, without the question."""
    screen.action_choose = screen.action_message = screen.action_pairs = lambda *_: None
    return screen


def no_finder() -> Any:
    raise UserError("nothing here")


# How to open a screen: with keys of the lab, or by constructing it (if it needs a run or several places open it). A screen
# that `opens` entered into the table of openers needs no line: its id opens it.
OPENED: dict[type[Screen[Any]], str | Callable[[LabApp], Screen[Any]]] = {
    AskScreen: "3 t",
    BatchScreen: lambda app: BatchScreen(fake_run.make("batch", done=20)),
    BranchScreen: lambda app: BranchScreen((run := fake_run.make("parent", done=20)), 10, run.config()),
    CompareScreen: lambda app: CompareScreen([fake_run.make("a", done=20), fake_run.make("b", done=30)]),
    CurvesScreen: lambda app: CurvesScreen([fake_run.make("curves", done=20)]),
    ConfirmScreen: lambda app: ConfirmScreen("Delete it?", "Delete"),
    ForeignScreen: lambda app: ForeignScreen(ForeignRun(Path("/nowhere"))),
    DrawManyScreen: lambda app: DrawManyScreen(app.lab_screen.lab, app.lab_screen.context.questions.ask, 0),
    DoubledSpaceScreen: lambda app: DoubledSpaceScreen("  purple"),
    DrawScreen: lambda app: DrawScreen(app.lab_screen.lab, app.lab_screen.context.questions.ask, 0),
    HelpScreen: "question_mark",
    InsideScreen: "A",
    BackwardScreen: lambda app: BackwardScreen(app.lab_screen.context),
    BlockScreen: lambda app: BlockScreen(app.lab_screen.context),
    LensGridScreen: lambda app: LensGridScreen(app.lab_screen.context),
    NeuronsScreen: lambda app: NeuronsScreen(
        app.lab_screen.context, NeuronsQuestion(app.lab_screen.lab.current_request(), 0, 0, 0, 1)
    ),
    LearnedScreen: lambda app: LearnedScreen(fake_run.make("learned", done=20)),
    LearnScreen: "3 L",
    ModelInfoScreen: lambda app: ModelInfoScreen(FakeEngine().models()[0]),
    ModelsScreen: "m",
    NewLadderScreen: lambda app: NewLadderScreen(),
    NewRunScreen: lambda app: NewRunScreen(),
    Palette: "ctrl+p",
    PatchScreen: lambda app: quiet(PatchScreen(app.lab_screen.context)),
    RunHeadsScreen: lambda app: RunHeadsScreen(fake_run.make("heads", done=20)),
    RunsScreen: lambda app: RunsScreen([fake_run.make("one", done=20).name]),
    SamplerScreen: lambda app: SamplerScreen(SamplerSettings(), {}),
    AlarmsScreen: lambda app: AlarmsScreen(lambda: app.lab_screen.panes["training"].snapshot, lambda step: None),
    MachineScreen: lambda app: MachineScreen(lambda: app.lab_screen.panes["training"].snapshot),
    LogScreen: lambda app: LogScreen(fake_run.make("logged", done=20)),
    SamplesScreen: lambda app: SamplesScreen(fake_run.make("samples", done=20)),
    ScratchScreen: "2 X",
    ReplayScreen: lambda app: ReplayScreen(fake_run.make("step", done=20), 30),
    FindRateScreen: lambda app: FindRateScreen(no_finder, "0.003"),
    StepRowScreen: lambda app: StepRowScreen("run", *a_row(), "text.txt, byte 5"),
    SwapScreen: lambda app: SwapScreen(app.lab_screen.context, app.lab_screen.swap.take),
    TemperaturesScreen: "2 T",
    InstructionPairsScreen: lambda app: InstructionPairsScreen("question => answer"),
    TreeScreen: "5 T",
    SftScreen: lambda app: quiet(SftScreen(app.lab_screen.context)),
    ChatScreen: lambda app: quiet(ChatScreen(app.lab_screen.context)),
    CompareModelsScreen: lambda app: quiet(CompareModelsScreen(app.lab_screen.context)),
}

BY_ID: dict[Any, str] = {opener.screen: id for id, opener in OPENERS.items() if opener.screen not in OPENED}


def all_screens() -> set[type[Screen[Any]]]:
    """Returns every screen of the package that is not only a base class."""
    for found in pkgutil.walk_packages(tui.__path__, f"{tui.__name__}."):
        importlib.import_module(found.name)
    found, todo = set(), [Screen]
    while todo:
        subclasses = todo.pop().__subclasses__()
        todo += subclasses
        found |= {one for one in subclasses if one.__module__.startswith("tui_llm.tui.")}
    return {one for one in found if not any(one in other.__bases__ for other in found)}


class Unwilling(FakeEngine):
    """An engine whose instruments answer no question."""

    def answer(self, question: Question, overtaken: Callable[[], bool] = lambda: False) -> Any:
        raise UserError("nothing here")


def closing_keys(screen: Screen[Any]) -> list[str]:
    """Returns Enter, Esc, q, and each of the screen's own keys whose action dismisses it."""
    keys = {"enter", "escape", "q"}
    for key, active in screen.active_bindings.items():
        name = active.binding.action.partition("(")[0].rpartition(".")[2]
        action = getattr(screen, f"action_{name}", None) if active.node is screen else None
        if action is not None and "dismiss(" in inspect.getsource(action):
            keys.add(key)
    return sorted(keys)


def send(app: LabApp, *keys: str) -> None:
    """Sends all keys at once: the app has handled none of them when the last one arrives."""
    for key in keys:
        app.post_message(events.Key(key, key_to_character(key)))


async def opened(app: LabApp, pilot: Pilot[None], kind: type[Screen[Any]], results: list[Any]) -> Screen[Any]:
    how = OPENED.get(kind)
    if how is None:
        await app.run_action(f"app.open('{BY_ID[kind]}')")
    elif isinstance(how, str):
        await pilot.press("escape", *how.split())
    else:
        app.push_screen(how(app), results.append)
    await until(pilot, lambda: type(app.screen) is kind and app.screen.is_mounted)
    return app.screen


def styles(screen: Screen[Any]) -> dict[Any, dict[str, Any]]:
    return {node: dict(node.styles.base._rules) for node in screen.walk_children(with_self=True)}  # type: ignore[misc]


def is_styled(screen: Screen[Any]) -> None:
    """A new screen has the styles that it would get if they were applied again (tui/kit/base_screen.py)."""
    before = styles(screen)
    screen.update_node_styles(animate=False)
    assert styles(screen) == before


async def shows_the_way_out(app: LabApp, pilot: Pilot[None], screen: Screen[Any]) -> None:
    """The key that closes the screen is in sight, alone and beside the tour, and F1 and ? open help above it."""
    for tour in (False, True):
        if tour:
            app.action_tour()
        for size in SIZES:
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert app.screen is screen
            # The tour's pane fits itself in several layouts.
            await until(pilot, lambda: any("Esc" in line for line in drawn(app)))
    if type(screen) is not HelpScreen:
        await pilot.press("f1")
        await until(pilot, lambda: type(app.screen) is HelpScreen)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        screen.set_focus(None)  # in a text field, ? is text
        await pilot.press("question_mark")
        await until(pilot, lambda: type(app.screen) is HelpScreen)
    await pilot.resize_terminal(100, 30)
    app.action_tour()


def test_every_screen_is_tested() -> None:
    assert all_screens() == {*OPENED, *BY_ID, LabScreen} and not OPENED.keys() & BY_ID.keys()
    assert all(issubclass(one, BaseScreen) for one in (*OPENED, *BY_ID))


@pytest.mark.parametrize("kind", (*OPENED, *BY_ID), ids=lambda kind: kind.__name__)
async def test_the_key_that_closes_a_screen_is_in_sight_and_twice_of_it_closes_one_screen(
    kind: type[Screen[Any]], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(Unwilling())
    below: list[Any] = []
    run_action = app.run_action

    async def spied(action: Any, *rest: Any) -> bool:
        if app.screen is app.lab_screen:
            below.append(action)
        return await run_action(action, *rest)

    async with app.run_test(size=SIZES[0]) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape")  # leave the editor, so that letters are commands
        keys = [""]
        for number, key in enumerate(keys):
            monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path / str(number)))  # a home with its own runs
            results: list[Any] = []
            screen = await opened(app, pilot, kind, results)
            if not key:
                keys += closing_keys(screen)
                is_styled(screen)
                await shows_the_way_out(app, pilot, screen)
            else:
                app.run_action = spied  # type: ignore[method-assign]
                send(app, key, key)
                await pilot.pause()
                await until(pilot, lambda: not app.key_order.waiting)  # the second one waits for the first
                app.run_action = run_action  # type: ignore[method-assign]
                assert app.screen_stack[0] is app.lab_screen and len(results) <= 1
            closed = screen not in app.screen_stack
            chosen = kind is Palette and key == "enter"  # the first Enter runs a command of the lab
            assert not closed or len(below) <= chosen, f"the second {key} was a command of the lab"
            below.clear()
            while len(app.screen_stack) > 1:
                app.screen.dismiss(None)
            await pilot.pause()
        assert len(keys) > 3
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))


async def test_dismissing_twice_closes_no_other_screen() -> None:
    app = make_app()
    results: list[bool | None] = []
    async with app.run_test() as pilot:
        await answered(pilot, app.lab_screen)
        below, screen = HelpScreen(()), ConfirmScreen("Delete it?", "Delete")
        app.push_screen(below)
        app.push_screen(screen, results.append)
        await pilot.pause()
        screen.dismiss(True)
        screen.dismiss(False)
        await pilot.pause()
        assert app.screen is below and results == [True]
        app.lab_screen.dismiss(None)  # the last screen stays
        await pilot.pause()
        assert app.screen_stack == [app.lab_screen, below]


async def test_a_covered_screen_closes_when_it_is_on_top_again() -> None:
    app = make_app()
    results: list[bool | None] = []
    async with app.run_test() as pilot:
        await answered(pilot, app.lab_screen)
        screen = ConfirmScreen("Delete it?", "Delete")
        app.push_screen(screen, results.append)
        app.action_command_palette()
        await pilot.pause()
        palette = app.screen
        screen.dismiss(True)  # as by a worker that is done
        await pilot.pause()
        assert app.screen is palette and not results
        await pilot.press("escape")
        assert app.screen is app.lab_screen and results == [True]


async def test_type_ahead_is_kept_and_the_closing_key_is_not_repeated_below() -> None:
    app = make_app()
    done: list[Any] = []
    run_action, pop = app.run_action, app.pop_screen

    async def spied(action: Any, *rest: Any) -> bool:
        done.append(action)
        return await run_action(action, *rest)

    def popped() -> Any:
        popping = pop()
        send(app, "n", "2", "question_mark")  # before the lab is painted
        return popping

    async with app.run_test(size=(100, 30)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "3")
        app.push_screen(ConfirmScreen("Delete it?", "Delete"))
        await pilot.pause()
        app.run_action, app.pop_screen = spied, popped  # type: ignore[method-assign]
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        assert app.lab_screen.panes.current == "logits"
        assert done == ["dismiss(False)", "pane('logits')", "show_help"]
        app.pop_screen = pop  # type: ignore[method-assign]
        await pilot.press("escape", "3", "n")  # now it is painted: `n` is a command again
        assert len(done) == 6


async def test_keys_before_the_lab_is_there_are_kept() -> None:
    app = make_app()
    send_early = LabApp.get_default_screen

    def early(self: LabApp) -> Any:
        send(app, "f2", "question_mark")
        return send_early(self)

    app.get_default_screen = early.__get__(app)  # type: ignore[method-assign]
    async with app.run_test() as pilot:
        await until(pilot, lambda: any("Tour" in line for line in drawn(app)))


async def test_an_answer_to_a_closed_screen_is_dropped() -> None:
    engine = FakeEngine()
    app = make_app(engine)
    heard: list[object] = []
    async with app.run_test() as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        for answer in (lambda _asked: "yes", Unwilling().answer):
            engine.answers[Question] = answer
            engine.gate.clear()
            lab.readings.request()  # keeps the engine's thread busy
            screen = AskScreen("Well?", "")
            app.push_screen(screen)
            lab.context.questions.ask(screen, Question(Request()), heard.append, heard.append)
            await pilot.pause()
            send(app, "escape")
            await until(pilot, lambda: app.screen is lab)
            engine.gate.set()
            await answered(pilot, lab)
            await until(pilot, lambda: Question not in lab.context.questions.pending)
            assert not heard


async def test_an_answer_before_a_screen_is_composed_waits_for_it() -> None:
    engine = FakeEngine()
    engine.answers[Question] = lambda _asked: "yes"
    app = make_app(engine)
    heard: list[tuple[object, bool]] = []
    async with app.run_test() as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        screen = AskScreen("Well?", "")
        lab.context.questions.ask(
            screen, question := Question(Request()), lambda said: heard.append((said, screen.is_mounted))
        )
        from tui_llm.tui.state.messages import Answered

        app.push_screen(screen)
        lab._answered(Answered(question, "yes", ""))
        assert not heard and not screen.is_mounted
        await until(pilot, lambda: heard)
        assert heard == [("yes", True)]


@pytest.mark.parametrize("lost", ["blur", "unfocused"])
async def test_a_key_in_a_bar_is_clicked_while_nothing_has_the_focus(lost: str) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "2")
        if lost == "blur":
            app.post_message(events.AppBlur())
            await pilot.pause()
        else:
            app.screen.set_focus(None)
        keys = {
            app.screen.get_style_at(x, y).meta.get("@click"): (x, y)
            for y in range(app.size.height)
            for x in range(app.size.width)
        }
        assert app.focused is None
        await pilot.click(offset=keys["focused.table('find')"])
        assert isinstance(app.screen, AskScreen)


@pytest.mark.parametrize("height", ["auto", "5"])
async def test_a_list_as_narrow_as_the_padding_of_its_options(height: str) -> None:
    """Textual 8.2 wraps them to no columns: ValueError."""

    class Narrow(App[None]):
        CSS = f"""
        OptionList {{ border: none; padding: 0; height: {height}; scrollbar-size: 0 0; }}
        OptionList > .option-list--option {{ padding: 0 1; }}
        """

        def compose(self) -> ComposeResult:
            yield OptionList("one two", "three")

    for width in (4, 3, 2, 1):
        app = Narrow()
        async with app.run_test(size=(width, 10)) as pilot:
            await pilot.press("down")
            await pilot.resize_terminal(40, 10)
            await until(pilot, lambda app=app: app.query_one(OptionList).virtual_size.height == 2)  # laid out again


async def test_a_page_key_in_a_palette_without_room() -> None:
    """Textual 8.2 looks up the line of the highlighted command, and there is none: KeyError."""
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "ctrl+p")
        await until(pilot, lambda: app.screen.query(CommandList) and app.screen.query_one(CommandList).option_count)
        await pilot.press("down")
        for size in ((18, 2), (1, 1)):
            await pilot.resize_terminal(*size)
            await pilot.press("pagedown", "pageup")
        await pilot.resize_terminal(120, 40)
        commands = app.screen.query_one(CommandList)
        await until(pilot, lambda: commands.scrollable_content_region.height > 1)  # laid out again
        await pilot.press("pagedown")
        last = commands.highlighted
        await pilot.press("pageup")
        assert commands.highlighted != last
