"""The tour's pane: on the right of the screen or, if there is no room, a strip at the bottom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.content import Content
from textual.geometry import Size
from textual.screen import Screen
from textual.widgets import Static
from textual.widgets._toast import ToastRack

from tui_llm.tour.numbers import keyed
from tui_llm.tour.tour import Tour
from tui_llm.tui.kit.command import CommandFactory

SIDE_FROM, SIDE, WIDE_FROM, WIDE = 110, 38, 180, 48  # columns
MOST, LEAST = 8, 12  # most rows of the strip; rows of the screen below which the strip has one at most

_key = CommandFactory("app", "Tour", ())
KEYS = (
    _key("tour", "f2", "tour", "Start, continue or close the tour; your progress is saved", "tour", footer=("*",), priority=True, importance=-1),
    _key("tour_back", "f3", "back", "Go back in the tour", "tour_move(-1)", priority=True, importance=-1),
    _key("tour_next", "f4", "skip", "Skip this step of the tour", "tour_move(1)", priority=True, importance=-1),
    _key("tour_answer", "f5", "answer", "Answer the tour's question: a guess, a file, pairs of your own", "tour_answer", priority=True, importance=-1),
)  # fmt: skip


def room_for(screen: Size) -> Size:
    """The room that the tour takes on a screen: columns on its right, or rows at its bottom."""
    if screen.width >= SIDE_FROM:
        return Size(WIDE if screen.width >= WIDE_FROM else SIDE, 0)
    return Size(0, min(MOST, max(3, screen.height // 3)) if screen.height >= LEAST else min(1, screen.height // 3))


def left_of(screen: Screen[Any]) -> Size:
    """The size of `screen` that the tour, if it is open there, leaves free."""
    if not any(isinstance(child, TourPane) for child in screen.children):
        return screen.size
    taken = room_for(screen.size)
    return Size(max(0, screen.size.width - taken.width), max(0, screen.size.height - taken.height))


class TourPane(Static):
    DEFAULT_CSS = """
    TourPane { background: $surface; color: $text; overflow: hidden; padding: 0 1; display: none; }
    TourPane.-side { display: block; dock: right; height: 100%; border-left: outer $accent; }
    TourPane.-strip { display: block; dock: bottom; width: 100%; }
    """

    def __init__(self, key_of: Callable[[str], str | None]) -> None:
        """`key_of` gives the key of a command's id, for the words of the steps."""
        super().__init__(classes="tour-pane")
        self.key_of = key_of
        self.plain = ""

    def fit(self, screen: Size) -> None:
        room = room_for(screen)
        self.set_class(room.width > 0, "-side")
        self.set_class(room.height > 0, "-strip")
        self.styles.width = room.width or "100%"
        self.styles.height = room.height or "100%"
        self._place_notifications(room)

    def close(self) -> None:
        self._place_notifications(Size(0, 0))
        self.remove()

    def _place_notifications(self, room: Size) -> None:
        """Places notifications beside the tour, never over its text."""
        if self.is_attached:
            for rack in self.screen.query(ToastRack):
                rack.styles.margin = (0, 0, 1 + room.height, 0)
                rack.styles.padding = (0, room.width, 0, 0)

    def show(self, tour: Tour) -> None:
        def words(text: str) -> str:
            return keyed(text, self.key_of)

        side = self.has_class("-side")
        gap = "\n\n" if side else "\n"
        keys = words(("" if tour.finished else "{tour_next} skips · ") + "{tour_back} back · {tour} closes")
        what = "Tour" if tour.is_tour else "Lesson"
        where = f"{what} {tour.step + 1}/{len(tour.steps)}: " if not tour.finished else f"{what}: "
        part = f" ({tour.part + 1}/{len(tour.steps[tour.step].parts)})" if not tour.finished else ""
        parts: list[str | tuple[str, str]] = [(where + tour.title + part, "bold $text-accent")]
        if not side:
            parts.append((f"  {keys}", "$text-muted"))
        here = tour.here
        seen = [("✓ ", "$text-success"), (words(tour.seen), "")] if tour.seen else []
        do = [("▸ ", "bold $text-accent"), (words(here.do if here is not None else tour.finished_words), "bold")]
        lacks = [("… ", "$text-warning"), (words(tour.lacks), "$text-muted")] if tour.lacks and here is not None else []
        for block in (seen, do, lacks) if side else (do, lacks, seen):  # in a strip, the last block may be cut off
            if block:
                parts += [gap if block is not lacks or side else "\n", *block]
        if side:
            parts.append((f"{gap}{keys}", "$text-muted"))
        content = Content.assemble(*parts)
        if content.plain != self.plain:
            self.plain = content.plain
            self.update(content, layout=False)
