"""Ghost text: after a pause in typing, the likeliest continuation is shown dimmed after the prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from textual.timer import Timer

from tui_llm.instruments.ghost.question import Ghost, GhostQuestion
from tui_llm.tui.kit.widgets.prompt import PromptEditor
from tui_llm.tui.state.context import LabContext

GHOST_AFTER = 0.25  # seconds after the last edit
HINT = "→ accepts a ghost token, Alt+→ a word, End all"


class GhostTextController:
    def __init__(self, context: LabContext, prompt: PromptEditor, generating: Callable[[], bool]) -> None:
        self.context, self.lab, self.prompt, self.generating = context, context.lab, prompt, generating
        self.on = True
        self.hint = ""  # how to accept the ghost text, for the line under the prompt; empty if there is none
        self._timer: Timer | None = None

    def toggle(self) -> None:
        self.on = not self.on
        self.context.notify("ghost text is on: it shows while you type" if self.on else "ghost text is off")
        self.drop()
        self.wait()

    def drop(self) -> None:
        """Cancels the request for ghost text, as the text has changed. The editor discards stale ghost text."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self.context.questions.forget(GhostQuestion)
        if not self.on:
            self.prompt.show_ghost(())
        self._show_hint()

    def wait(self) -> None:
        """Requests ghost text after a pause in typing. Called when the reading has arrived, so that the engine is
        free."""
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.context.set_timer(GHOST_AFTER, self._ask) if self._wanted() else None

    def _wanted(self) -> bool:
        return (
            self.on
            and not self.generating()
            and not self.lab.steps
            and self.prompt.has_focus
            and self.prompt.at_end
            and bool(self.lab.prompt)
        )

    def _ask(self) -> None:
        self._timer = None
        if self.context.reading_is_current and self._wanted():
            request = dataclasses.replace(self.lab.before_step(0), tokenizer=None)
            self.context.questions.ask(None, GhostQuestion(request), self._take, lambda line: None)

    def _take(self, ghost: Ghost) -> None:
        typed_on = self.prompt.prompt_text != self.lab.prompt  # the message of the newest edit has not arrived yet
        if self._wanted() and not typed_on and ghost.weights == self.context.weights:
            self.prompt.show_ghost(ghost.pieces)
            self._show_hint()

    def _show_hint(self) -> None:
        self.hint = HINT if self.prompt.ghost else ""
        self.context.show_history(False)
