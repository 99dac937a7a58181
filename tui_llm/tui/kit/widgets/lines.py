"""A scrolling list of styled lines that draws only the visible lines, with fixed head lines and an optional cursor.

Subclasses define the lines: `head`, `foot`, `row_count`, `row`, `selectable`. Lines are `rich.text.Text`, never markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import ClassVar, Self

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

SHADES = 6  # levels of a token's shade
PALETTE = 6  # colours that neighbouring tokens cycle through


def flat_segments(text: Text, base: Style) -> list[Segment] | None:
    """The segments that `text.render` gives, in a third of its time, for text whose spans do not overlap, as in most
    lines. Keeps the text's own style, which `render` omits if there are no spans. None if spans overlap or a style is
    only a name."""
    plain, at, segments = text.plain, 0, []
    if isinstance(text.style, Style):
        base = base + text.style
    elif text.style:
        return None
    for start, end, style in text.spans:
        if start < at or not isinstance(style, Style):
            return None
        if start > at:
            segments.append(Segment(plain[at:start], base))
        if end > start:
            segments.append(Segment(plain[start:end], base + style))
        at = end
    if at < len(plain):
        segments.append(Segment(plain[at:], base))
    return segments


class Lines(ScrollView, can_focus=True):
    DEFAULT_CSS = "Lines { overflow-x: hidden; overflow-y: scroll; }"  # the scrollbar keeps its column: see `_resized`
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"lines--{name}" for name in ("muted", "strong", "accent", "good", "bad", "bar", "cursor", "generated")),
        *(f"lines--token-{index}" for index in range(PALETTE)),
        *(f"lines--token-shade-{level}" for level in range(SHADES)),
    }

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.cursor: int | None = None
        self._head: list[Text] = []
        self._foot = 0  # number of foot lines
        self._rows = 0
        self._outdated = False  # the lines may not be those of what is shown now: there was no room to make them
        self._styles: dict[str, Style] = {}
        self._painted: dict[int, Text] = {}  # the lines on the screen, by y
        self._fresh: dict[int, Text] = {}  # the lines to draw next, by y, where they are already known

    # ── what a subclass defines ──────────────────────────────────────────────────────────────────────────────────

    def head(self, width: int) -> Sequence[Text]:
        return ()

    def foot(self, width: int) -> Sequence[Text]:
        """Lines below the rows. Called at every repaint: they may depend on the rows in sight."""
        return ()

    def row_count(self, width: int) -> int:
        return 0

    def row(self, index: int, width: int, selected: bool) -> Text:
        return Text()

    def selectable(self, index: int) -> bool:
        """Whether the cursor can be on a line. `index` may be out of range while the lines change."""
        return False

    def cursor_moved(self) -> None:
        """Called when the cursor has moved to another row."""

    # ── styles ───────────────────────────────────────────────────────────────────────────────────────────────────

    def style(self, name: str) -> Style:
        """A component class's style with its colours blended; with a background only if the component class has its
        own, so that the cursor's background shows through."""
        if (known := self._styles.get(name)) is not None:
            return known
        style = self.get_component_rich_style(f"lines--{name}")
        if name != "cursor" and not name.startswith("token-"):
            colour = style.color if style.color != self.ground.color else None
            style = Style(color=colour, bold=style.bold, italic=style.italic, underline=style.underline)
        self._styles[name] = style
        return style

    @property
    def ground(self) -> Style:
        """The style of a blank cell. Cached, like the results of `style`: computing one costs more than drawing a
        line."""
        if (known := self._styles.get("")) is None:
            known = self._styles[""] = self.rich_style
        return known

    @property
    def plain(self) -> bool:
        """Whether there are no colours: boundaries that colour shows otherwise then need a character of their own."""
        return self.app.no_color

    # ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def line_width(self) -> int:
        return max(0, self.scrollable_content_region.width)

    def rebuild(self) -> None:
        """Makes all lines again, but draws only those that differ: drawing a line costs far more than making it."""
        width = self.line_width
        if not self.is_mounted or width <= 0:
            self._outdated, self._fresh = True, {}
            return
        self._head = list(self.head(width))
        self._rows = self.row_count(width)
        self._foot = len(self.foot(width))
        self._outdated = False
        if self.cursor is not None:
            self._place_cursor(min(self.cursor, self._rows - 1), quiet=True)
        if self._resized(Size(width, len(self._head) + self._rows + self._foot)):
            self.refresh()
            return
        foot = self.foot(width) if self._foot else ()
        sight, columns = self.in_sight, self.size.width
        fresh = {y: self._text_at(y, width, foot, sight) for y in range(self.scrollable_content_region.height)}
        changed = [
            Region(0, y, columns, 1)
            for y, text in fresh.items()
            if (there := self._painted.get(y)) is None or there != text or there.style != text.style
        ]
        if changed:
            self.refresh(*changed)
        self._fresh = fresh

    def _resized(self, size: Size) -> bool:
        """Sets the size of all lines together; returns whether that triggers a layout, which redraws every pane. To
        avoid a layout, the scrollbar always keeps its column, and a change in the number of lines moves only its thumb.
        The height is at least the visible height, so there is no thumb if all lines are in sight."""
        room = self.container_size.height
        size = Size(size.width, max(size.height, room))
        if size == self.virtual_size:
            return False
        if size.width != self.virtual_size.width or self.styles.auto_dimensions:
            self.virtual_size = size
            return True
        self.set_reactive(Lines.virtual_size, size)
        self.vertical_scrollbar.window_virtual_size = size.height
        self.scroll_y = self.validate_scroll_y(self.scroll_y)
        return False

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        self._fresh = {}  # the cause, such as a scroll or a new row, is unknown to `rebuild`
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    @property
    def in_sight(self) -> range:
        """The rows that are visible."""
        top = self.scroll_offset.y
        return range(top, min(self._rows, top + max(0, self.size.height - len(self._head) - self._foot)))

    def on_resize(self, event: events.Resize) -> None:
        self.rebuild()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles.clear()
        self._painted.clear()  # the same text has other styles now
        if self.is_mounted:
            self.call_after_refresh(self.rebuild)

    def _text_at(self, y: int, width: int, foot: Sequence[Text] | None = None, sight: range | None = None) -> Text:
        """The text of visible line `y`, with the cursor's style. `foot` and `sight`, the rows in sight, are found if they
        are not given. Blank while the lines are outdated: the screen may be drawn in its new size before they are made."""
        if self._outdated:
            return Text()
        head = len(self._head)
        if y < head:
            return self._head[y]
        below = y - head - len(self.in_sight if sight is None else sight)
        if self._foot and below >= 0:
            foot = self.foot(width) if foot is None else foot
            return foot[below] if below < len(foot) else Text()
        index = y - head + self.scroll_offset.y
        if not 0 <= index < self._rows:
            return Text()
        text = self.row(index, width, selected=index == self.cursor and self.has_focus)
        if index == self.cursor and self.has_focus:
            text = text.copy()
            text.stylize_before(self.style("cursor"))
            text.pad_right(max(0, width - text.cell_len))
        return text

    def render_line(self, y: int) -> Strip:
        base, room = self.ground, self.size.width
        text = self._fresh.pop(y, None)
        if text is None:
            text = self._text_at(y, self.line_width)
        self._painted[y] = text
        if not text.plain:
            return Strip.blank(room, base)
        segments = flat_segments(text, base)
        if segments is None:
            end, text.end = text.end, ""
            segments = list(Segment.apply_style(text.render(self.app.console), base))
            text.end = end
        cells = text.cell_len
        if cells < room:
            segments.append(Segment(" " * (room - cells), base))
        strip = Strip(segments, max(cells, room))
        return strip if cells <= room else strip.adjust_cell_length(room, base)

    # ── the cursor ───────────────────────────────────────────────────────────────────────────────────────────────

    def _place_cursor(self, index: int, quiet: bool = False, direction: int = 1) -> None:
        index = max(0, min(index, self._rows - 1))
        for candidate in chain(
            range(index, self._rows if direction > 0 else -1, direction),
            range(index, -1 if direction > 0 else self._rows, -direction),
        ):
            if self.selectable(candidate):
                break
        else:
            self.cursor = None
            return
        moved = candidate != self.cursor
        self.cursor = candidate
        if not quiet:
            self._show_cursor()
            if moved:
                self.cursor_moved()
            self.refresh()

    def _show_cursor(self) -> None:
        if self.cursor is None:
            return
        height = max(1, self.size.height - len(self._head) - self._foot)
        top = self.scroll_offset.y
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False)

    def _step(self, amount: int) -> bool:
        if self.cursor is None:
            return False
        self._place_cursor(self.cursor + amount, direction=1 if amount > 0 else -1)
        return True

    @property
    def _page(self) -> int:
        return max(1, self.size.height - len(self._head) - self._foot - 1)

    def on_focus(self) -> None:
        if self.cursor is None and self._rows:
            self._place_cursor(0)
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def action_scroll_up(self) -> None:
        if not self._step(-1):
            super().action_scroll_up()

    def action_scroll_down(self) -> None:
        if not self._step(1):
            super().action_scroll_down()

    def action_page_up(self) -> None:
        if not self._step(-self._page):
            super().action_page_up()

    def action_page_down(self) -> None:
        if not self._step(self._page):
            super().action_page_down()

    def action_scroll_home(self) -> None:
        if not self._step(-self._rows):
            super().action_scroll_home()

    def action_scroll_end(self) -> None:
        if not self._step(self._rows):
            super().action_scroll_end()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        index = offset.y - len(self._head) + self.scroll_offset.y
        if offset.y >= len(self._head) and index in self.in_sight and self.selectable(index):
            self._place_cursor(index)
