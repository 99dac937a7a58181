"""Ghost text: after a pause in typing, the likeliest continuation is shown dimmed after the prompt."""

from __future__ import annotations

import dataclasses

from textual.timer import Timer

from tui_llm.instruments.ghost.question import Ghost, GhostQuestion
from tui_llm.tui.lab.undoing import Undoing
from tui_llm.tui.state.inquire import Inquiring

GHOST_AFTER = 0.25  # seconds after the last edit
HINT = "ghost text: → accepts a token, Alt+→ a word, End all"


class Ghosting(Inquiring, Undoing):
    ghost_on = True
    _ghost_timer: Timer | None = None

    def action_ghost(self) -> None:
        self.ghost_on = not self.ghost_on
        self.say("ghost text is on: it shows while you type" if self.ghost_on else "ghost text is off")
        self.drop_ghost()
        self.await_ghost()

    def drop_ghost(self) -> None:
        """Cancels the request for ghost text, as the text has changed. The editor discards stale ghost text."""
        if self._ghost_timer is not None:
            self._ghost_timer.stop()
            self._ghost_timer = None
        self.forget(GhostQuestion)
        if not self.ghost_on:
            self.prompt.show_ghost(())
        self._show_hint()

    def await_ghost(self) -> None:
        """Called when the reading has arrived, so that the engine is free: requests ghost text after a pause in
        typing."""
        if self._ghost_timer is not None:
            self._ghost_timer.stop()
        self._ghost_timer = self.set_timer(GHOST_AFTER, self._ask_ghost) if self._ghost_wanted() else None

    def _ghost_wanted(self) -> bool:
        return (
            self.ghost_on
            and self._job is None
            and not self.lab.steps
            and self.prompt.has_focus
            and self.prompt.at_end
            and bool(self.lab.prompt)
        )

    def _ask_ghost(self) -> None:
        self._ghost_timer = None
        current = self.reading is not None and self.reading.request.number == self.lab.number
        if current and self._ghost_wanted():
            request = dataclasses.replace(self.lab.before_step(0), tokenizer=None)
            self.inquire(self, GhostQuestion(request), self._take_ghost, lambda line: None)

    def _take_ghost(self, ghost: Ghost) -> None:
        typed_on = self.prompt.prompt_text != self.lab.prompt  # the message of the newest edit has not arrived yet
        if self._ghost_wanted() and not typed_on and ghost.weights == self.weights:
            self.prompt.show_ghost(ghost.pieces)
            self._show_hint()

    def _show_hint(self) -> None:
        self.ghost_hint = HINT if self.prompt.ghost else ""
        self.show_undo()
