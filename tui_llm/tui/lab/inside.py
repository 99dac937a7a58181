"""Opens the Inside screen over the lab, for the lab's text at that time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui_llm.facts.request import Request
from tui_llm.tui.state.context import LabContext

if TYPE_CHECKING:
    from tui_llm.tui.instruments.inside.inside import InsideScreen


class InsideController:
    def __init__(self, context: LabContext) -> None:
        self.context = context
        self.screen: InsideScreen | None = None  # while it is open

    def open(self) -> None:
        from tui_llm.tui.instruments.inside.inside import InsideScreen

        if not self.context.is_open():
            return
        self.context.stop_generation()
        lab = self.context.lab
        request = Request(
            prompt=lab.prompt,
            continuation=lab.continuation,
            allow_special=lab.allow_special,
            start_token=lab.start_token,
            chat=lab.chat,
            interventions=lab.interventions,
        )
        self.screen = InsideScreen(self.context, request, lab.target, self._selected_token)

        def left(_nothing: None) -> None:
            self.screen = None

        self.context.push_screen(self.screen, left)

    @property
    def _selected_token(self) -> int | None:
        """The index of the token at the token cursor, or of the first one that the model sees; None is the text's last
        token."""
        position, reading = self.context.lab.position, self.context.reading
        if position is None or reading is None or reading.request.position != position:
            return position
        return max(position, len(reading.prompt_ids) - reading.fed)
