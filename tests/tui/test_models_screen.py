"""The Models screen: its list, and pulling a model, cancelled or not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers import answered, drawn, make_app, unsafe, until

from tests import HANG
from tui_llm.common import paths
from tui_llm.facts.model import ModelInfo
from tui_llm.llm.hub import model_list, pull
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.models.info import InfoLines, ModelInfoScreen
from tui_llm.tui.models.models import ModelsScreen, fitting
from tui_llm.tui.models.pull import ModelPull, progress_line

CACHED = ModelInfo("some/small[/]\x1b", "cache", "/cache/x", 1_000_000, 1024, 50257, size=2_500_000, origin="Hugging Face cache, commit 0a")  # fmt: skip


def shows(app: object, text: str) -> bool:
    return any(text in line for line in drawn(app))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_the_cache_is_listed_too_and_opened(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_list, "cached", lambda: [CACHED])
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "m")
        await until(pilot, lambda: isinstance(app.screen, ModelsScreen) and app.screen._cached and app.screen._own)
        assert not unsafe(drawn(app))
        assert shows(app, "some/small[/]␛") and shows(app, "2.5 MB")
        await pilot.press("end", "i")
        await until(pilot, lambda: isinstance(app.screen, ModelInfoScreen))
        await until(pilot, lambda: shows(app, "untied head"))
        assert not unsafe(drawn(app))
        await pilot.press("y")
        assert "vocabulary\t50,257" in app.clipboard and "untied head · no <s>␛[/] in front" in app.clipboard
        await pilot.press("escape", "enter")
        await until(pilot, lambda: app.lab_screen.weights is not None and app.lab_screen.weights.name == "/cache/x")


async def test_the_models_screen_survives_one_cell() -> None:
    app = make_app()
    async with app.run_test(size=(1, 1)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "m")
        await until(pilot, lambda: isinstance(app.screen, ModelsScreen) and app.screen._own)
        app.push_screen(ModelInfoScreen(CACHED))
        await pilot.press("down", "y", "escape", "D", "c", "p", "escape", "escape")
        await pilot.pause()


async def test_a_card_of_long_and_hostile_lines(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# [red]\x1b[31m\u202e\n" + "word " * 2000 + "漢字" * 500)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        app.push_screen(ModelInfoScreen(ModelInfo("m", "folder", str(tmp_path), None, None, None, problem="[/]")))
        await until(pilot, lambda: app.screen.query(InfoLines) and app.screen.query_one(InfoLines).card)
        await pilot.press("end")
        await until(pilot, lambda: shows(app, "漢字"))
        assert not unsafe(drawn(app))


def child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(ModelPull, "command", lambda self, name: [sys.executable, "-c", code, name])


async def pulls(app: object, pilot: object) -> None:
    await pilot.press("escape", "m", "p", "enter")  # type: ignore[attr-defined]


async def test_a_pull_shows_how_far_it_is_and_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    now = '{"doing": "model[/]", "done": 5000000, "total": 10000000}'
    child(monkeypatch, f"import sys, time; print({now!r}, file=sys.stderr, flush=True); time.sleep({HANG})")
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pulls(app, pilot)
        await until(pilot, lambda: shows(app, "50 %  5.0 MB of 10.0 MB  model[/]"))
        await pilot.press("c")
        await until(pilot, lambda: any("is cancelled" in str(note.message) for note in app._notifications))
        assert not shows(app, "50 %")


async def test_closing_the_screen_cancels_the_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, f"import time; time.sleep({HANG})")
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pulls(app, pilot)
        screen = app.screen
        await until(pilot, lambda: isinstance(app.screen, ModelsScreen) and app.screen.pull.child is not None)
        screen = app.screen
        assert isinstance(screen, ModelsScreen)
        process = screen.pull.child
        assert process is not None
        await pilot.press("escape")
        await until(pilot, lambda: process.poll() is not None)


async def test_a_failed_pull_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "import sys; sys.exit('tui-llm: there is no model [/]')")
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pulls(app, pilot)
        await until(pilot, lambda: any(str(note.message) == "there is no model [/]" for note in app._notifications))


@pytest.mark.parametrize(
    ("name", "why"), [("a\0b", "null byte"), ("\ud800", "can't encode"), ("x" * 200_000, "too long")]
)
async def test_a_name_that_no_process_can_be_given_is_told(name: str, why: str) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "m", "p")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        app.screen.dismiss(name)
        await until(pilot, lambda: any(note.message.startswith("can't pull") for note in app._notifications))
        (note,) = app._notifications
        assert why in note.message and len(note.message) < 300 and note.severity == "error"


async def test_only_a_pulled_model_is_deleted_and_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = paths.models_dir() / "gpt2"
    folder.mkdir(parents=True)
    (folder / "pulled.json").write_text('{"repository": "openai-community/gpt2"}')
    pulled = ModelInfo("gpt2", "model", str(folder), 1, 1, 1, pulled=True)
    monkeypatch.setattr(model_list, "cached", lambda: [pulled])
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "m")
        await until(pilot, lambda: isinstance(app.screen, ModelsScreen) and app.screen._cached and app.screen._own)
        await pilot.press("D")
        await until(pilot, lambda: any("only a pulled" in str(note.message) for note in app._notifications))
        await pilot.press("end", "D", "n")
        assert pull.origin(folder) is not None
        await pilot.press("D", "y")
        await until(pilot, lambda: not folder.exists())


def test_a_line_of_progress() -> None:
    assert progress_line({"doing": "asking x", "done": 0, "total": 0}) == "asking x"
    assert progress_line({"doing": "f", "done": 1, "total": "x"}) == "f"
    assert progress_line({"doing": "f", "done": 10, "total": 10}).startswith("█" * 20 + " 100 %")


def test_numbers_are_shown_whole_or_not_at_all() -> None:
    numbers = ("12.3 M", "context 1,024", "vocabulary 50,257")
    whole = "12.3 M · context 1,024 · vocabulary 50,257 · Hugging Face cache"
    for room in range(len(whole) + 2):
        shown = fitting(numbers, "Hugging Face cache", room)
        assert len(shown) <= room and (shown == whole or not room or shown.endswith("…"))
        assert set(shown.removesuffix("…").rstrip(" ·").split(" · ")[:3]) <= {*numbers, ""}
    assert fitting(numbers, "", len(" · ".join(numbers))) == " · ".join(numbers)
    assert fitting((), "cache", 9) == "cache" and fitting((), "", 9) == ""


@pytest.mark.parametrize("size", [(80, 24), (92, 30)])
async def test_no_number_of_a_model_is_cut(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    long = ModelInfo("long", "cache", "/c", 124_439_808, 1024, 50257, size=548_105_171, step=123_456, origin="Hugging Face cache")  # fmt: skip
    monkeypatch.setattr(model_list, "cached", lambda: [long])
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "m")
        await until(pilot, lambda: isinstance(app.screen, ModelsScreen) and app.screen._cached and app.screen._own)
        await until(pilot, lambda: shows(app, "548.1 MB"))
        line = next(line for line in drawn(app) if "548.1 MB" in line)
        row = next(part for part in line.split("┃") if "548.1 MB" in part).rstrip()
        assert row.endswith(" · …"), row
        assert row.removesuffix(" · …").endswith(("548.1 MB", "context 1,024", "vocabulary 50,257", "step 123,456"))


async def test_a_model_is_not_opened_while_another_is_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, f"import time; time.sleep({HANG})")
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pulls(app, pilot)
        await until(pilot, lambda: isinstance(app.screen, ModelsScreen) and app.screen.pull.child is not None)
        screen = app.screen
        assert isinstance(screen, ModelsScreen) and screen.pull.child is not None
        await pilot.press("enter")
        await until(pilot, lambda: any("c cancels it" in str(note.message) for note in app._notifications))
        assert app.screen is screen and screen.pull.child.poll() is None
        await pilot.press("c")
        await until(pilot, lambda: not screen.pull.is_running)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.lab_screen)
