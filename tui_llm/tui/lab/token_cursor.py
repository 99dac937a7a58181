"""The token cursor: every pane shows the reading before the token at which it stands."""

from __future__ import annotations

from tui_llm.tui.state.context import LabContext


class TokenCursorController:
    def __init__(self, context: LabContext) -> None:
        self.context, self.lab = context, context.lab

    @property
    def _count(self) -> int:
        reading = self.context.reading
        return len(reading.prompt_ids) if reading is not None else 0

    def move(self, direction: int) -> None:
        count = self._count
        now = self.lab.position
        place = (count if now is None else min(now, count)) + direction
        if count:
            self._put(max(0, place), count)

    def move_to(self, place: int) -> None:
        """Moves the cursor to token `place`, or to the end (−1)."""
        if self._count:
            self._put(place if place >= 0 else self._count, self._count)

    def _put(self, place: int, count: int) -> None:
        before = self.lab.position
        self.lab.place(place if place < count else None)
        if self.lab.position != before:
            self.context.request_reading()
