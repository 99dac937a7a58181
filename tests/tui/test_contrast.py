"""Readable text in both themes: WCAG 2's AA contrast for text, 4.5 : 1, measured on the drawn screen."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, until
from rich.style import Style
from textual.color import Color
from textual.pilot import Pilot

from tui_llm.tui.app import LabApp
from tui_llm.tui.kit.themes import DARK, LIGHT, readable

LEAST = 4.5


def luminance(color: Color) -> float:
    """Relative luminance: https://www.w3.org/TR/WCAG21/#dfn-relative-luminance"""
    red, green, blue = (
        part / 255 / 12.92 if part <= 0.03928 * 255 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in color.rgb
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: Color, other: Color) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_words_have_contrast_in_both_themes() -> None:
    for theme in readable():
        colors = {**theme.to_color_system().generate(), **theme.variables}
        background = Color.parse(colors["background"])
        for name in ("primary", "secondary", "warning", "error", "success", "accent"):
            word = Color.parse(colors[f"text-{name}"])
            for behind in (background, Color.parse(colors["panel"]), background + Color.parse(colors[f"{name}-muted"])):
                assert contrast(word, behind) >= LEAST, (theme.name, name, behind)


def hard_to_read(app: LabApp) -> list[str]:
    """Returns the words on the screen with too little contrast. Borders, bars and scrollbars are not words."""
    found = []
    for strip in app.screen._compositor.render_strips():
        for text, style, _ in strip:
            if not any(char.isalnum() for char in text):
                continue
            assert isinstance(style, Style) and style.color is not None and style.bgcolor is not None, text
            ratio = contrast(Color.from_rich_color(style.color), Color.from_rich_color(style.bgcolor))
            if style.dim or ratio < LEAST:
                found.append(f"{ratio:.2f} {text.strip()!r} {style}")
    return found


async def in_both_themes(pilot: Pilot[None], app: LabApp, where: str) -> None:
    for theme in (LIGHT, DARK):
        app.theme = theme
        await pilot.pause()
        await pilot.pause()
        assert not hard_to_read(app), (where, theme, hard_to_read(app))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_lab_can_be_read_as_it_starts_and_in_both_themes(size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        assert app.theme_variables["text-secondary"] == readable()[0].variables["text-secondary"]
        await answered(pilot, app.lab_screen)
        await pilot.pause()
        assert not hard_to_read(app)
        await pilot.press("escape")
        for pane in "12345":
            await pilot.press(pane)
            await in_both_themes(pilot, app, pane)


@pytest.mark.parametrize("keys", ["2 C", "1 A", "3 L", "5 T", "5 D", "R", "4 n"])
async def test_other_screens_can_be_read_in_both_themes(keys: str) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", *keys.split())
        await pilot.pause()
        await in_both_themes(pilot, app, keys)


class Broken(FakeEngine):
    def open(self, model: str) -> None:  # type: ignore[override]
        raise OSError("nothing is there")


async def test_a_problem_can_be_read_in_both_themes() -> None:
    app = make_app(Broken())
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "! " in drawn(app)[0])
        await in_both_themes(pilot, app, "a problem")
