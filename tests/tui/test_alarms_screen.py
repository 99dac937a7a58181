"""Is this normal?: the pane's line, the band in the chart, the screen of all alarms; and the worker's log."""

from __future__ import annotations

from pathlib import Path

import fake_run
import pytest
from helpers import make_app, text, unsafe, until
from test_training_pane import HOSTILE, PaneApp

from tui_llm.training.run import health
from tui_llm.training.run.alarm_kinds import OVERFITTING, Alarm
from tui_llm.training.run.run import Run
from tui_llm.tui.runs.alarms import AlarmsScreen, judged_words
from tui_llm.tui.runs.log import LogLines, LogScreen
from tui_llm.tui.runs.step import ReplayScreen


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path))
    return tmp_path


def spiked() -> Run:
    run = fake_run.make("tales", steps=400, done=200)
    fake_run.add(run, 201, 201, loss=9.0, grad_norm=40.0)
    fake_run.add(run, 202, 240)
    return run


async def test_the_pane_has_the_band_before_any_alarm() -> None:
    fake_run.make("tales", steps=400, done=30)
    app = PaneApp()
    async with app.run_test(size=(100, 34)) as pilot:
        await until(pilot, lambda: "no alarm · the band of the end's loss needs 30 more steps" in app.text)
        fake_run.add(Run(health.find("tales").path), 31, 150)
        app.pane.reload()
        await until(pilot, lambda: "no alarm · ends between" in app.text)
        await until(pilot, lambda: "┃ end " in app.text)
        snapshot = app.pane.snapshot
        assert snapshot is not None and snapshot.health is not None and snapshot.health.band is not None
        low, high = snapshot.health.band.low, snapshot.health.band.high
        assert f"ends between {low:.2f} and {high:.2f} (80 %)" in app.text
        assert low < 1 + 5 * 2.718281828 ** (-4) + 0.3  # what fake_run's curve has at step 400


async def test_the_screen_says_which_steps_were_not_looked_at() -> None:
    run = fake_run.make("tales", steps=400, done=20)
    fake_run.add(run, 21, 21, loss=9.0, grad_norm=40.0)  # a leap that no 64 steps stand before
    fake_run.add(run, 22, 40)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("escape", "4")
        await until(pilot, lambda: "no alarm" in text(app))
        await pilot.press("N")
        await until(pilot, lambda: isinstance(app.screen, AlarmsScreen) and "No step was looked at" in text(app))
        assert "no alarm" in text(app)
    assert health.run_health("tales").judged_from is None
    fake_run.add(run, 41, 150)
    first = (
        max(run.config().settings.warmup_steps, 64) + 1
    )  # whichever is longer: the warm-up, or what it is compared with
    assert health.run_health("tales").judged_from == first
    assert judged_words(first).startswith(f"Steps before {first} were not looked at")


async def test_an_alarm_is_a_line_and_a_key_opens_all() -> None:
    run = spiked()
    health.record(run, [Alarm(OVERFITTING, 220, 210, f"evidence {HOSTILE}")])
    app = make_app()
    async with app.run_test(size=(100, 34)) as pilot:
        await pilot.press("escape", "4")
        await until(pilot, lambda: "! overfitting at step 220" in text(app) and "N: all 2" in text(app))
        await pilot.press("N")
        await until(pilot, lambda: isinstance(app.screen, AlarmsScreen) and "! spike at step 201" in text(app))
        shown = text(app)
        assert (
            "loss 9.000; the 64 steps before it have a median of" in shown and "Gradient norm 40, usually 0.5" in shown
        )
        assert "! overfitting at step 220, since step 210" in shown and "Muennighoff" in shown
        assert not unsafe(shown.split("\n"))
        fake_run.add(run, 241, 260)
        fake_run.add(run, 261, 261, loss=12.0)
        app.lab_screen.panes["training"].reload()  # type: ignore[attr-defined]
        await until(pilot, lambda: "! spike at step 261" in text(app))
        await pilot.press("enter")  # on the alarm that was the newest: a newer one does not move the cursor off it
        await until(pilot, lambda: isinstance(app.screen, ReplayScreen))
        assert isinstance(app.screen, ReplayScreen) and app.screen.step == 210
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, AlarmsScreen))
        await pilot.press("home", "enter")
        await until(pilot, lambda: isinstance(app.screen, ReplayScreen))
        assert isinstance(app.screen, ReplayScreen) and app.screen.step == 261
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.screen is app.lab_screen)
        await pilot.press("E")
        await until(pilot, lambda: isinstance(app.screen, LogScreen))


async def test_without_a_run_the_keys_say_so() -> None:
    app = PaneApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "n  starts one" in app.text)
        await pilot.press("N", "E", "D")
        await pilot.pause()


# ── the worker's log ─────────────────────────────────────────────────────────────────────────────────────────────


def log_of(count: int = 500) -> Run:
    run = fake_run.make("logged", done=20)
    lines = [f"line {i} of the worker{' warning: NaN' if i % 100 == 7 else ''}" for i in range(count)]
    run.log_path.write_text("\n".join(lines) + "\n")
    return run


async def opened(pilot: object, app: object, run: Run) -> LogScreen:
    screen = LogScreen(run)
    app.push_screen(screen)  # type: ignore[attr-defined]
    return screen


def first_row(screen: LogScreen) -> str:
    laid = screen.query_one(LogLines)._laid
    return laid[0].plain if laid else ""


async def test_the_log_follows_its_end_and_moves() -> None:
    run, app = log_of(), make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app, run)
        await until(pilot, lambda: "line 499 of the worker" in text(app) and "following the end" in text(app))
        with run.log_path.open("a") as file:
            file.write("one more\n")
        await until(pilot, lambda: "one more" in text(app))
        await pilot.press("home")
        await until(pilot, lambda: first_row(screen) == "line 0 of the worker")
        assert not screen.following
        await pilot.press("down")
        await until(pilot, lambda: first_row(screen) == "line 1 of the worker")
        await pilot.press("pagedown")
        await until(pilot, lambda: first_row(screen).startswith("line 2"))
        await pilot.press("pageup")
        await until(pilot, lambda: first_row(screen) == "line 1 of the worker")
        await pilot.press("end")
        await until(pilot, lambda: "one more" in text(app) and screen.following)
        await pilot.press("up")
        await until(pilot, lambda: "one more" not in text(app) and not screen.following)
        await pilot.press("f")
        await until(pilot, lambda: "one more" in text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)


async def test_the_log_can_be_searched_and_filtered() -> None:
    run, app = log_of(), make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app, run)
        await until(pilot, lambda: "line 499" in text(app))
        await pilot.press("slash", *"nan", "enter")
        await until(pilot, lambda: first_row(screen).startswith("line 407 "))
        await pilot.press("N")
        await until(pilot, lambda: first_row(screen).startswith("line 307 "))
        await pilot.press("n")
        await until(pilot, lambda: first_row(screen).startswith("line 407 "))
        await pilot.press("n")
        await until(pilot, lambda: "no line later with 'nan'" in text(app))
        await pilot.press("ampersand", *"warning", "enter")
        await until(pilot, lambda: first_row(screen).startswith("line 7 ") and "line 8 " not in text(app))
        assert [line.text.split()[1] for line in screen.query_one(LogLines).window.lines] == [
            "7",
            "107",
            "207",
            "307",
            "407",
        ]
        await pilot.press("ampersand", *"nowhere", "enter")
        await until(pilot, lambda: "no line contains" in text(app))
        await pilot.press("slash", *"nan", "enter")  # of no lines, too
        await until(pilot, lambda: "no line with 'nan'" in text(app))
        await pilot.press("ampersand", "enter")
        await until(pilot, lambda: "no line contains" in text(app) or "line 499" in text(app))


async def test_hostile_bytes_of_a_log_are_shown_safely() -> None:
    run, app = log_of(3), make_app()
    with run.log_path.open("ab") as file:
        file.write(HOSTILE.encode() + b"\xff\x00\r50 %\r100 %\n" + b"x" * 100_000 + b"\n")
    async with app.run_test(size=(60, 16)) as pilot:
        await opened(pilot, app, run)
        await until(pilot, lambda: "xxxxx" in text(app))
        await pilot.press("home")
        await until(pilot, lambda: "line 0 of the worker" in text(app))
        await until(pilot, lambda: "[red]b[/]" in text(app))
        assert not unsafe(text(app).split("\n"))


async def test_a_log_that_cannot_be_read_or_is_not_there_says_so() -> None:
    run, app = fake_run.make("logged", done=20), make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app, run)
        await until(pilot, lambda: "the worker has printed nothing yet" in text(app))
        await pilot.press("slash", *"a", "enter", "n", "up", "pagedown", "home", "end", "escape")
        await until(pilot, lambda: app.screen is app.lab_screen)
        run.log_path.mkdir()
        await opened(pilot, app, run)
        await until(pilot, lambda: "can't be read" in text(app))


async def test_the_last_alarm_can_be_read_to_its_end_and_the_band_again() -> None:
    run = spiked()
    health.record(run, [Alarm(OVERFITTING, step, step, f"evidence {step}") for step in range(210, 240, 10)])
    app = make_app()
    async with app.run_test(size=(80, 16)) as pilot:
        await pilot.press("escape", "4")
        await until(pilot, lambda: "N: all 4" in text(app))
        await pilot.press("N")
        await until(pilot, lambda: isinstance(app.screen, AlarmsScreen) and "! overfitting at step 230" in text(app))
        first = text(app)
        assert "the band of" in first or "ends between" in first
        assert first.count("Open the checkpoint with the lowest validation loss") == 1  # once for all of a kind
        await pilot.press(*["down"] * 60)
        await until(pilot, lambda: "section 5.1)." in text(app))  # the spike's advice, the end of all
        await pilot.press(*["up"] * 60)
        await until(pilot, lambda: text(app) == first)
