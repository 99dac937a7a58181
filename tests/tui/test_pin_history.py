"""Pinning what is shown, and the screen that shows how a run learned it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import fake_run
import pytest
from helpers import answered, drawn, make_app, unsafe, until
from textual.app import App
from textual.pilot import Pilot

from tui_llm.common import paths
from tui_llm.facts.pin import Pin
from tui_llm.facts.request import Target
from tui_llm.training.run import pin_readings, pins
from tui_llm.training.run.pin_readings import PinCandidate, PinEvaluation, PinReading, PinTargetToken
from tui_llm.training.run.run import Run
from tui_llm.tui.app import LabApp
from tui_llm.tui.kit.widgets.probability_chart import ProbabilityChart, tick
from tui_llm.tui.runs.new_run import NewRunScreen
from tui_llm.tui.runs.pin_history import LearnedScreen
from tui_llm.tui.runs.pin_list import PinList, end_of
from tui_llm.tui.runs.pin_table import PinTable

CAT, DOG = Pin("The cat", " sat"), Pin("A dog")
HOSTILE = Pin("a\x1b[31m[red]b[/]\u202e\x9b1m[link='x \x07漢e\u0301", "\u0301[/]\x1b]0;x\x07")


def read(pin: Pin, step: int) -> PinReading:
    """Returns predictions that improve linearly until step 100."""
    p = 0.001 + 0.9 * step / 100
    rows = [
        (7, b" sat", p),
        (1, b"[/]", 0.03),
        (2, b"\x1b[31m", 0.02),
        (3, b"\xe2", 0.01),
        (4 + step, b"x%d" % step, 0.002),
    ]
    candidates = tuple(PinCandidate(*row) for row in sorted(rows, key=lambda row: -row[2]))
    tokens = (PinTargetToken(7, b" sat", -math.log(p), p, 1),) if pin.target else ()
    return PinReading(pin, 1.0, candidates, tokens, "it sees [/] the last" if pin == HOSTILE else "")


def add(run: Run, *steps: int, wanted: tuple[Pin, ...] = (CAT, DOG)) -> None:
    with run.pin_readings_path.open("ab") as file:
        for step in steps:
            evaluation = PinEvaluation(step, tuple(read(pin, step) for pin in wanted))
            file.write(json.dumps(pin_readings.line(evaluation)).encode() + b"\n")


def make(*steps: int, wanted: tuple[Pin, ...] = (CAT, DOG), state: str = "stopped") -> Run:
    run = fake_run.make("tales", done=100, state=state)
    pins.write(run.pins_path, wanted)
    add(run, *steps, wanted=wanted)
    return run


class ScreenApp(App[None]):
    def __init__(self, run: Run | None) -> None:
        super().__init__()
        self.shown = LearnedScreen(run)

    def on_mount(self) -> None:
        self.push_screen(self.shown)

    @property
    def text(self) -> str:
        return "\n".join(drawn(self))  # type: ignore[arg-type]

    @property
    def table(self) -> list[tuple[str, ...]]:
        return list(self.shown.query_one(PinTable).table())


async def seen(pilot: Pilot[None], app: ScreenApp) -> None:
    await until(pilot, lambda: app.shown.snapshot is not None)
    await pilot.pause()


# ── P ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_P_pins_what_is_shown_for_the_user_and_the_watched_run_and_unpins_it() -> None:
    run = make(0)
    app = make_app(prompt="The mat")
    async with app.run_test(size=(100, 30)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await until(pilot, lambda: lab.panes.training.run_watched is not None)
        await pilot.press("escape")
        lab.lab.target = Target(text=" floor")
        await pilot.press("P")
        assert pins.of_user() == [Pin("The mat", " floor")]
        assert pins.read(run.pins_path) == [CAT, DOG, Pin("The mat", " floor")]
        lab.lab.target = None
        await pilot.press("P")
        assert Pin("The mat") in pins.of_user()
        await pilot.press("P")
        lab.lab.target = Target(text=" floor")
        await pilot.press("P")
        assert pins.of_user() == [] and pins.read(run.pins_path) == [CAT, DOG]


async def test_a_pin_at_the_end_of_the_text_has_no_own_next_token_and_says_nothing_false() -> None:
    app = make_app(prompt="The cat")
    async with app.run_test(size=(100, 30)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.lab.target = Target(own=True)
        lab.readings.request()
        await answered(pilot, lab)
        await pilot.press("escape", "P")
        await pilot.pause()
        assert pins.of_user() == [Pin("The cat")]
        assert not any("whole character" in note.message for note in app._notifications)


@pytest.mark.parametrize("prompt", ["", "x" * 3000])
async def test_P_reports_what_cannot_be_pinned(prompt: str) -> None:
    app = make_app(prompt=prompt)
    async with app.run_test(size=(100, 30)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "P")
        await until(pilot, lambda: app._notifications)
        assert any("pin" in note.message and note.severity == "error" for note in app._notifications)
        assert not paths.pins_path().exists()


async def test_a_row_of_the_table_is_pinned_as_text_and_a_hostile_prompt_is_said_safely() -> None:
    app = make_app(prompt=HOSTILE.prompt)
    async with app.run_test(size=(100, 30)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.lab.target = Target(id=3)
        lab.readings.request()
        await answered(pilot, lab)
        await pilot.press("escape", "P")
        await pilot.pause()
        assert pins.of_user() == [Pin(lab.lab.prompt, " sat")]
        (message,) = [note.message for note in app._notifications]
        assert message.startswith("pinned: a␛[31m[red]b[/]") and not unsafe([message])


async def test_a_run_that_the_form_makes_gets_the_users_pins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins.write(paths.pins_path(), [CAT])
    monkeypatch.setattr("tui_llm.training.plan.launch.start", lambda run: None)
    corpus = home.parent / "tales.txt"
    corpus.write_text("a cat sat on a mat\n" * 300)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        made: list[Run | None] = []
        form = NewRunScreen(str(corpus))
        app.push_screen(form, made.append)
        await until(pilot, lambda: form.is_mounted and "corpus" not in form._field_problems)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: made)
        assert made[0] is not None and pins.read(made[0].pins_path) == [CAT]


# ── the screen ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_h_opens_the_watched_runs_history_and_Esc_closes_it() -> None:
    make(0, 50, 100)
    app: LabApp = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await until(pilot, lambda: app.lab_screen.panes.training.run_watched is not None)
        await pilot.press("escape", "4", "h")
        await until(pilot, lambda: "step 100 (3 of 3, newest)" in "\n".join(drawn(app)))
        text = "\n".join(drawn(app))
        assert "How it learned" in text and "The cat → ·sat" in text and "90.1 %" in text and "Esc back" in text
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen is app.lab_screen


async def test_arrows_go_through_the_saved_evaluations() -> None:
    app = ScreenApp(make(*range(0, 101, 2)))
    async with app.run_test(size=(80, 24)) as pilot:
        await seen(pilot, app)
        assert "step 100 (51 of 51, newest)" in app.text
        assert app.table[1][:2] == ("100", "candidate") and float(app.table[1][5]) == pytest.approx(0.901)
        for key, step in (
            ("left", 98),
            ("shift+left", 78),
            ("home", 0),
            ("left", 0),
            ("shift+right", 20),
            ("right", 22),
        ):
            await pilot.press(key)
            assert app.shown.here is not None and app.shown.here[0] == step, key
            assert app.table[1][0] == str(step)
            assert app.shown.query_one(ProbabilityChart).shown.here == step
        await pilot.press("end")
        assert app.shown.step is None
        await pilot.press("y")
        assert app.clipboard.startswith("step\twhat\tid") and "\ttarget\t7\t" in app.clipboard
        await pilot.press("down")  # without a target: the tokens that are most probable at the end
        await pilot.pause()
        lines = app.shown.query_one(ProbabilityChart).shown.lines
        assert [line.name for line in lines] == ["·sat", "[/]", "␛[31m", "<0xE2>"]
        assert [len(line.points) for line in lines] == [51] * 4
        await pilot.press("l")
        await until(pilot, lambda: "log axis" in app.text)
        assert not unsafe(drawn(app))  # type: ignore[arg-type]


async def test_a_mark_shows_the_difference() -> None:
    app = ScreenApp(make(0, 10, 50, 100))
    async with app.run_test(size=(80, 24)) as pilot:
        await seen(pilot, app)
        await pilot.press("home", "right", "space", "end")
        await pilot.pause()
        assert "since step 10" in app.text and "target's loss 2.397 → 0.104 (−2.293)" in app.text
        header, first, *rest = app.table
        assert header[3:] == ("probability_at_10", "probability_at_100", "change")
        assert first[0] == "7" and float(first[5]) == pytest.approx(0.81)
        gone = next(row for row in rest if row[2] == "x10")
        assert gone[4] == "" and gone[5] == ""  # not recorded at step 100, so unknown
        assert "+81.00" in app.text and "≤" in app.text
        await pilot.press("y")
        assert "probability_at_10\t" in app.clipboard
        await pilot.press("left", "left", "space")  # at the mark itself: removes it
        await pilot.pause()
        assert app.shown.marked is None and "since" not in app.text


async def test_the_history_stays_live_and_keeps_the_chosen_evaluation() -> None:
    run = make(0, 10, state="running")
    app = ScreenApp(run)
    with fake_run.alive(run):
        async with app.run_test(size=(100, 30)) as pilot:
            await until(pilot, lambda: "step 10 (2 of 2, newest)" in app.text)
            add(run, 20)
            await until(pilot, lambda: "step 20 (3 of 3, newest)" in app.text)
            await pilot.press("home")
            reader = app.shown.query_one("PinsWatcher")._reader  # type: ignore[attr-defined]
            before = reader.tail.offset
            add(run, 30)
            await until(pilot, lambda: "step 0 (1 of 4)" in app.text)
            assert reader.tail.offset > before
            (run.pin_readings_path.parent / "new").write_bytes(b"")
            (run.pin_readings_path.parent / "new").replace(run.pin_readings_path)  # truncated, as by a resumed run
            add(run, 0)
            await until(pilot, lambda: "step 0 (1 of 1)" in app.text)


async def test_pins_are_listed_removed_and_restored() -> None:
    run = make(0, 100)
    pins.write(paths.pins_path(), [CAT, Pin("mine alone")])
    app = ScreenApp(run)
    async with app.run_test(size=(100, 30)) as pilot:
        await seen(pilot, app)
        listed = app.shown.query_one(PinList)
        assert listed.pins == (CAT, DOG, Pin("mine alone")) and "★ The cat" in app.text and "not read now" in app.text
        await pilot.press("delete")
        await until(pilot, lambda: app.shown.snapshot and app.shown.snapshot.of_user == (Pin("mine alone"),))
        assert pins.read(run.pins_path) == [DOG]
        assert CAT in app.shown.pins  # its recorded predictions are kept
        await pilot.press("P")
        await until(pilot, lambda: CAT in pins.of_user())
        await pilot.press("shift+tab")
        await until(pilot, lambda: "does not read this one" in app.text)
        await pilot.press("tab")
        await pilot.click("#learned-pins", offset=(5, 1))
        await until(pilot, lambda: app.shown.chosen == DOG)
        paths.pins_path().write_text("[")
        await pilot.press("P")
        await until(pilot, lambda: any("not valid JSON" in note.message for note in app._notifications))


@pytest.mark.parametrize("size", [(1, 1), (80, 24)])
async def test_hostile_text_at_any_size(size: tuple[int, int]) -> None:
    app = ScreenApp(make(0, 50, wanted=(HOSTILE, CAT)))
    async with app.run_test(size=size) as pilot:
        await seen(pilot, app)
        for key in ("left", "space", "right", "l", "P", "down", "pagedown", "pageup", "up", "y", "shift+right"):
            await pilot.press(key)
            await pilot.pause()
            assert not unsafe(drawn(app))  # type: ignore[arg-type]
        if size[0] >= 80:
            assert "it sees [/] the last" in app.text


async def test_without_a_run_or_a_pin_it_says_what_to_press() -> None:
    app = ScreenApp(None)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "no prompt is pinned" in app.text)
        await pilot.press("left", "space", "P", "y", "down", "home", "end", "delete")
        pins.write(paths.pins_path(), [CAT])
        app.shown.query_one("PinsWatcher").read()  # type: ignore[attr-defined]
        await until(pilot, lambda: "no training run is watched" in app.text)


def test_the_end_of_a_long_prompt_is_shown() -> None:
    assert end_of("abcdef", 4) == "…def" and end_of("abc", 3) == "abc" and end_of("abc", 0) == ""
    assert end_of("漢字漢字", 4) == "…字"


def test_probability_ticks_are_plain_and_distinct() -> None:
    ticks = [tick(10.0**-power) for power in range(10)]
    assert ticks[:3] == ["100 %", "10 %", "1 %"] and ticks[7:] == ["0.00001 %", "0.000001 %", "0.0000001 %"]
    assert [tick(0.2), tick(0.00015)] == ["20 %", "0.015 %"]
