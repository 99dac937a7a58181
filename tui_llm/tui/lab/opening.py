"""Opens the Inside screen over the lab, for the lab's text at that time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on

from tui_llm.facts.request import Request
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.state.inquire import Inquiring
from tui_llm.tui.state.messages import ModelOpened

if TYPE_CHECKING:
    from tui_llm.tui.instruments.inside.inside import InsideScreen


class Opening(Inquiring):
    _inside: InsideScreen | None = None

    def action_inside(self) -> None:
        from tui_llm.tui.instruments.inside.inside import InsideScreen

        if self.weights is None:
            self.say("the model is not open yet")
            return
        self.stop_stream()
        lab = self.lab
        request = Request(
            prompt=lab.prompt,
            continuation=lab.continuation,
            allow_special=lab.allow_special,
            start_token=lab.start_token,
            chat=lab.chat,
        )
        self._inside = InsideScreen(self, request, lab.target, self._token_chosen)

        def left(_nothing: None) -> None:
            self._inside = None

        self.app.push_screen(self._inside, left)

    @property
    def _token_chosen(self) -> int | None:
        """The index of the token at the token cursor, or of the first one that the model sees; None is the text's last
        token."""
        position, reading = self.lab.position, self.reading
        if position is None or reading is None or reading.request.position != position:
            return position
        return max(position, len(reading.prompt_ids) - reading.fed)

    @on(ModelOpened)
    def _other_weights_inside(self, message: ModelOpened) -> None:
        if self._inside is not None:
            deliver(self._inside, self._inside.reopened, message.weights)
