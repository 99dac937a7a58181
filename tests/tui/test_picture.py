"""A picture of the screen: a standalone SVG of any screen, in which hostile text is escaped."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fake_engine import FakeEngine
from helpers import answered, make_app, until
from textual.pilot import Pilot

from tui_llm.tui.app import CommandProvider, LabApp
from tui_llm.tui.kit.save import free_path

HOSTILE = "[/] [red]x </text><script> &amp; \x1b]0;x\x07 \x9b31m \u202eabc 漢字"


async def pictured(pilot: Pilot[None], app: LabApp, number: int) -> str:
    """Returns the text in picture number `number`, which must be well-formed XML without control characters."""
    path = Path(f"screen-{number}.svg")
    await until(pilot, path.exists)
    data = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(data)
    assert not {
        char for char in data if (ord(char) < 32 and char != "\n") or 127 <= ord(char) < 160 or char == "\u202e"
    }
    assert {element.tag.split("}")[1] for element in root.iter()} <= {"svg", "style", "defs", "clipPath", "rect", "g", "text", "circle"}  # fmt: skip
    return "".join(root.itertext()).replace("\xa0", " ")


async def test_hostile_text_is_text_in_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(FakeEngine(hostile=True), prompt=HOSTILE)
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("W")  # typed into the prompt: no command
        assert app.lab_screen.prompt.prompt_text.endswith("W")
        await pilot.press("escape", "W")
        text = await pictured(pilot, app, 1)
        assert "[red]x" in text and "</text><script> &amp;" in text and "␛" in text and "Logits & softmax" in text
        await pilot.pause()
        said = list(app._notifications)
        assert said and str(tmp_path / "screen-1.svg") in said[-1].message
        await pilot.press("W")  # the previous picture is not replaced
        await pictured(pilot, app, 2)


async def test_pictures_of_windows_and_the_palette(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await answered(pilot, app.lab_screen)
        for number, (open_, words) in enumerate((("question_mark", "Keys and glossary"), ("m", "shipped")), 1):
            await pilot.press("escape", open_)
            await pilot.pause()
            await pilot.press("W")
            assert words in await pictured(pilot, app, number)
            await pilot.press("escape")
        found = [hit async for hit in CommandProvider(app.screen).search("picture")]
        assert any("W" in str(hit.text) for hit in found)


async def test_an_unwritable_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "gone"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    assert free_path("screen", "svg", "pictures") == Path(os.environ["TUI_LLM_HOME"]) / "pictures" / "screen-1.svg"
    (tmp_path / "tui-llm-home").write_text("a file where the folder should be")
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "W")
        await until(pilot, lambda: any("is not a folder" in one.message for one in app._notifications))
