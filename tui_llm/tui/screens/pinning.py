"""Pinning the prompt and target that are shown."""

from __future__ import annotations

from tui_llm.display import truncate, visible
from tui_llm.errors import UserError
from tui_llm.training import pins
from tui_llm.training.pins import Pin
from tui_llm.tui.panes.training import TrainingPane
from tui_llm.tui.screens.lab_base import LabBase


def pinned_words(pin: Pin, pinned: bool, run: str) -> str:
    """What is said when a pin was put up or taken down: raw text."""
    name = truncate(visible(pins.said(pin)), 60)
    if not pinned:
        return f"unpinned: {name}"
    return f"pinned: {name}; " + (f"{run} reads it from its next evaluation on" if run else "the next run reads it")


class Pinning(LabBase):
    def action_pin(self) -> None:
        text, foreign = self._target_text()
        pin = Pin(self.lab.prompt + self.lab.generated_text, text)
        run = self.query_one(TrainingPane).watcher.run_watched
        try:
            pinned = pins.toggle(pin, run)
        except UserError as error:
            self.warn(str(error))
            return
        self.say(pinned_words(pin, pinned, run.name if run else ""))
        if foreign and pinned:
            self.say("pinned without its target, which is no whole character")

    def _target_text(self) -> tuple[str | None, bool]:
        """The target as text; and whether there is one that no text can stand for."""
        target = self.lab.target
        if target is None or (target.id is None and not target.own):
            return (target.text if target else None), False
        rows = [*(self.reading.loss.tokens if self.reading and self.reading.loss else ())]
        data = next((row.bytes for row in rows if target.own or row.id == target.id), b"")
        try:
            return data.decode() or None, not data
        except UnicodeDecodeError:
            return None, True
