"""The scrolling list draws what Textual and rich would, at lower cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import App, ComposeResult

from tui_llm.tui.kit.text import running, wrapped
from tui_llm.tui.kit.widgets.lines import Lines, flat_segments

BASE = Style(color="white", bgcolor="black")
STYLES = [None, Style(bold=True), Style(color="red", strike=True)]
PARTS = st.lists(st.tuples(st.text(st.sampled_from("ab ·日é[/]")), st.sampled_from(STYLES)), max_size=6)


def runs(segments: Sequence[Segment]) -> list[tuple[str, Style | None]]:
    """Joins adjacent segments with the same style."""
    return [
        ("".join(segment.text for segment in same), style)
        for style, same in groupby((segment for segment in segments if segment.text), lambda segment: segment.style)
    ]


@given(PARTS, st.sampled_from(["", *STYLES[1:]]))
def test_a_line_of_parts_is_drawn_as_rich_draws_it(parts, style) -> None:
    text = Text(style=style, end="")
    for part, own in parts:
        text.append(part, own)
    flat = flat_segments(text, BASE)
    assert flat is not None
    if style:  # for a text without spans, rich's `render` omits the style
        text.stylize_before(style)
        text.style = ""
    assert runs(flat) == runs(list(Segment.apply_style(text.render(Console()), BASE)))


def test_overlapping_and_named_styles_are_left_to_rich() -> None:
    text = Text("abc")
    text.stylize(Style(bold=True))
    text.stylize(Style(italic=True), 1)
    assert flat_segments(text, BASE) is None
    assert flat_segments(Text("abc", spans=[*Text("abc", "red").spans], style="red"), BASE) is None


@given(st.text(st.sampled_from("ab 日é\n\t[/]"), max_size=30), st.integers(1, 20))
def test_running_text_is_as_rich_wraps(plain, width) -> None:
    expected = Text(plain).wrap(Console(width=80), width) if plain else [Text()]
    assert [line.plain for line in running(Text(plain), width)] == [line.plain for line in expected]
    lines = wrapped(Text(plain), width)  # the last two may be balanced
    assert [line.plain for line in lines[:-2]] == [line.plain for line in expected[:-2]]
    assert len(lines) == len(expected) and all(line.cell_len <= width for line in lines)
    words = [word for line in lines for word in line.plain.split()]
    assert words == [word for line in expected for word in line.plain.split()]


class Rows(Lines):
    count = 50

    def row_count(self, width: int) -> int:
        return self.count

    def row(self, index: int, width: int, selected: bool) -> Text:
        return Text(f"row {index}")


class RowsApp(App[None]):
    def compose(self) -> ComposeResult:
        yield Rows()


@pytest.mark.parametrize("count", [60, 30, 10, 5, 0])
async def test_a_changed_number_of_lines_moves_the_scroll_bar_without_a_new_layout(count: int) -> None:
    app = RowsApp()
    async with app.run_test(size=(20, 10)) as pilot:
        rows = app.query_one(Rows)
        await pilot.pause()
        rows.scroll_end(animate=False)
        await pilot.pause()
        assert rows.scroll_offset.y == 40
        seen, reflow = [], app.screen._compositor.reflow
        app.screen._compositor.reflow = lambda *given: (seen.append(1), reflow(*given))[1]  # type: ignore[method-assign]
        rows.count = count
        rows.rebuild()
        await pilot.pause()
        assert not seen
        assert rows.scroll_offset.y == min(40, max(0, count - 10))  # not beyond the last line
        assert rows.max_scroll_y == max(0, count - 10)
        bar = rows.vertical_scrollbar
        assert (bar.window_size, bar.window_virtual_size) == (10, max(10, count))
        marks = {
            segment.text for y in range(10) for segment in bar.render_line(y) if segment.style and segment.style.reverse
        }
        assert bool(marks) == (count > 10)  # the scrollbar's thumb
        top = rows.scroll_offset.y
        assert [rows.render_line(y).text.strip() for y in range(min(count, 10))] == [
            f"row {top + y}" for y in range(min(count, 10))
        ]


class Named(Lines):
    """A line for each name, of a list that can change."""

    names: Sequence[str] = tuple("abcdef")
    held = False

    def row_count(self, width: int) -> int:
        return len(self.names)

    def row(self, index: int, width: int, selected: bool) -> Text:
        return Text(self.names[index])

    def rebuild(self) -> None:
        if not self.held:
            super().rebuild()


class NamedApp(App[None]):
    def compose(self) -> ComposeResult:
        yield Named()


async def test_lines_that_changed_while_there_was_no_room_are_not_drawn_as_they_were() -> None:
    app = NamedApp()
    async with app.run_test(size=(20, 10)) as pilot:
        named = app.query_one(Named)
        await pilot.resize_terminal(1, 10)
        await pilot.pause()
        assert named.line_width == 0
        named.names = "x"
        named.rebuild()
        named.held = True  # the screen is drawn in its new size before the lines are made
        await pilot.resize_terminal(20, 10)
        await pilot.pause()
        assert [named.render_line(y).text.strip() for y in range(10)] == [""] * 10
        named.held = False
        named.rebuild()
        await pilot.pause()
        assert [named.render_line(y).text.strip() for y in range(3)] == ["x", "", ""]
