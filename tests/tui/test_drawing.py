"""What tui/kit/textual_private.py and textual_styles.py make faster in Textual's drawing gives what Textual gives."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from helpers import answered, drawn, make_app
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.css.stylesheet import Stylesheet
from textual.renderables.background_screen import BackgroundScreen
from textual.screen import Screen
from textual.strip import Strip
from textual.style import Style as VisualStyle
from textual.visual import RenderOptions, RichVisual
from textual.widgets import Static

from tui_llm.tui.help import HelpScreen
from tui_llm.tui.kit import textual_private, textual_styles
from tui_llm.tui.kit.static_text import set_text
from tui_llm.tui.kit.widgets.field import Field
from tui_llm.tui.runs.new_run import NewRunScreen


def test_a_strip_has_the_caches_that_textual_makes() -> None:
    """If this fails, Textual's strips have changed: then they are left as they are, and the wrapper can be adapted or go."""
    assert Strip.__init__ is textual_private._strip_init
    mine, theirs = Strip([Segment("ab")], 2), Strip.__new__(Strip)
    textual_private._textual_strip_init(theirs, [Segment("ab")], 2)
    for name in textual_private.STRIP_CACHES:
        assert getattr(mine, name)._maxsize == getattr(theirs, name)._maxsize and not getattr(mine, name)
        assert getattr(mine, name) is getattr(mine, name)
    for name in textual_private.STRIP_VALUES:
        assert getattr(mine, name) == getattr(theirs, name)
    with pytest.raises(AttributeError):
        mine.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_strips_are_cut_joined_and_compared_as_ever() -> None:
    strip = Strip([Segment("abc"), Segment("漢字", Style(bold=True))])
    assert strip.cell_length == 7 and strip.crop(1, 5).text == "bc漢" == strip.crop(1, 5).text
    assert [part.text for part in strip.divide([2, 7])] == ["ab", "c漢字"]
    assert strip.divide([2, 7]) is strip.divide([2, 7]), "the cache is used"
    assert strip == Strip([Segment("abc"), Segment("漢字", Style(bold=True))]) and strip != Strip([Segment("abc")])
    assert Strip.join(strip.divide([3, 7])).text == "abc漢字"


async def test_a_widget_is_styled_when_it_is_mounted_not_before() -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await answered(pilot, app.lab_screen)
        field = Field(compact=True, id="late")
        assert field.has_class("-textual-compact") and not field.styles.base._rules
        await app.screen.mount(field)
        applied = dict(field.styles.base._rules)
        assert applied
        field.update_node_styles(animate=False)
        assert applied == field.styles.base._rules


async def test_a_component_class_is_styled_when_it_is_used() -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await answered(pilot, app.lab_screen)
        field = Field("text")
        await app.screen.mount(field)
        field._component_styles.clear()
        cursor = dict(field.get_component_styles("input--cursor").base._rules)
        assert cursor and [*field._component_styles] == ["input--cursor"]
        textual_styles._process_component_classes(app.stylesheet, field)
        assert cursor == field._component_styles["input--cursor"].base._rules
        with pytest.raises(KeyError):
            field.get_component_styles("input--nothing")


async def test_a_text_that_is_shown_already_is_not_laid_out() -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await answered(pilot, app.lab_screen)
        static = Static()
        await app.screen.mount(static)
        updates: list[Any] = []
        update = static.update
        static.update = lambda content: (updates.append(content), update(content))  # type: ignore[method-assign, assignment]
        for text in ("", "[b]", "[b]", "c", "c", ""):
            set_text(static, text)
            assert static.content == text and str(static.render()) == text
        assert updates == ["[b]", "c", ""]


def test_the_caches_of_styles_and_segments_are_bounded() -> None:
    """If this fails, Textual or Rich keeps less, or has no such cache: then `hold_less` can go."""
    for number in range(textual_private.CACHED + 10):
        placed = Style(bold=True, meta={"offset": (number, 0)})
        assert Strip.render_ansi(placed, ColorSystem.TRUECOLOR) == "1"
        assert Segment("漢字", placed).split_cells(2) == (Segment("漢", placed), Segment("字", placed))
    for cached in (Strip.render_ansi, Segment._split_cells):
        assert cached.cache_info().currsize == textual_private.CACHED  # type: ignore[attr-defined]


COLOURS = (None, "red", "#123456", "default", "color(200)")


@pytest.mark.parametrize("tint", [Color(10, 20, 30, 0.6), Color(200, 0, 9, 0.0), Color(1, 2, 3)], ids=str)
def test_the_tint_of_a_screen_below_a_dialog_is_textuals(tint: Color) -> None:
    made = [None, *(Style(color=one, bgcolor=other, bold=one == "red", underline=other == "red", meta={"@click": "x"} if one else None, link="y" if other else None)
                    for one, other in product(COLOURS, COLOURS))]  # fmt: skip
    segments = [Segment(f"{at}", style) for at, style in enumerate(made)] + [Segment("", None, [(1,)])]  # type: ignore[list-item]
    wanted = list(textual_private._process_segments(segments, tint))
    for _ in range(2):
        found: list[Any] = list(BackgroundScreen.process_segments(segments, tint))
        assert found == wanted
        for mine, their in zip(found, wanted, strict=True):
            assert mine.style == their.style and (mine.style is None or mine.style.meta == their.style.meta)


async def test_a_dialog_tints_the_screen_below_it() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        below = drawn(app)
        await pilot.press("escape", "question_mark")
        assert isinstance(app.screen, HelpScreen)
        assert drawn(app)[0] == below[0], "the lab is in sight"
        lines = app.screen._compositor.render_strips()
        assert not any(style is not None and style.meta for _, style, _ in lines[0]), "and cannot be clicked"


async def test_the_lines_of_the_screen_below_are_textuals() -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "question_mark")
        below = BackgroundScreen(app.lab_screen, Color(10, 20, 30, 0.6))
        visual = below.visualize()  # type: ignore[attr-defined]
        options = RenderOptions(app.screen._get_style, app.screen.styles, None, None)
        for width, height, style in (
            (100, 30, VisualStyle(background=Color(9, 9, 9), bold=True)),
            (70, 9, VisualStyle()),
        ):
            mine = visual.render_strips(width, height, style, options)
            assert len(mine) == height and mine[0].cell_length == width
            assert mine == RichVisual.render_strips(visual, width, height, style, options)


Rules = dict[Any, tuple[dict[str, Any], dict[str, dict[str, Any]]]]


def rules(screen: Screen[Any]) -> Rules:
    """The rules of each widget and of its component classes."""
    return {
        node: (
            dict(node.styles.base._rules),
            {name: dict(node.get_component_styles(name).base._rules) for name in node._get_component_classes()},
        )
        for node in screen.walk_children(with_self=True)
    }


async def test_widgets_are_styled_as_textual_styles_them(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        seen = []
        for screen, name, theme in (
            (app.lab_screen, "-single", ""),
            (NewRunScreen(), "-narrow", ""),
            (NewRunScreen(), "-low", "textual-light"),
        ):
            if screen is not app.lab_screen:
                app.push_screen(screen)
            await pilot.pause()
            before = rules(screen)
            app.theme = theme or app.theme
            screen.toggle_class(name)
            await pilot.pause()
            mine = rules(screen)
            seen.append(mine != before)
            with monkeypatch.context() as patch:
                patch.setattr(Stylesheet, "apply", textual_styles._apply)
                patch.setattr(Stylesheet, "replace_rules", textual_styles._replace_rules)
                patch.setattr(Stylesheet, "_process_component_classes", textual_styles._process_component_classes)
                screen.update_node_styles(animate=False)
            assert rules(screen) == mine
            screen.toggle_class(name)
            await pilot.pause()
            assert theme or rules(screen) == before
        assert all(seen)
