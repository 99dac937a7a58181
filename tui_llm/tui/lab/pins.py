"""Pins the prompt and target that are shown."""

from __future__ import annotations

from tui_llm.common.errors import UserError
from tui_llm.facts.pin import Pin
from tui_llm.facts.reading import Reading
from tui_llm.training.run import pins
from tui_llm.tui.runs.pane import TrainingPane
from tui_llm.tui.runs.words import pinned_words
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.lab import target_text


class PinsController:
    def __init__(self, context: LabContext, training: TrainingPane) -> None:
        self.context, self.training = context, training

    def toggle(self) -> None:
        """Pins what the panes show: at the token cursor, the text before it and the loss's target there."""
        text = self._text_shown()
        if text is None:
            return
        requested = self.context.lab.requested_target
        # A target that nobody chose is not pinned: another one is the likeliest at the next evaluation.
        chosen = None if requested.likeliest else requested
        target, foreign = target_text(chosen, self.context.reading)
        run = self.training.run_watched
        try:
            pin = Pin(text, target)
            pinned = pins.toggle(pin, run)
        except UserError as error:
            self.context.warn(str(error))
            return
        self.context.notify(pinned_words(pin, pinned, run.name if run else ""))
        if foreign and pinned:
            self.context.notify("pinned without its target, which is not a whole character")

    def _text_shown(self) -> str | None:
        """The text before the prediction. If there is none, notifies the user why and returns None."""
        lab, reading = self.context.lab, self.context.reading
        if lab.position is None:
            return lab.prompt + lab.generated_text
        if not self.context.has_current_reading() or reading is None:
            return None
        if lab.position == 0:
            self.context.notify("there is no text before the first token: move the token cursor on, then pin")
            return None
        text = text_before(reading, lab.prompt, [step.bytes for step in lab.steps])
        if text is None:
            self.context.notify("the token cursor is inside a character, and a pin is text: move it on, then pin")
        return text


def text_before(reading: Reading, prompt: str, steps: list[bytes]) -> str | None:
    """The text before the reading's position; None if that is inside a character."""
    drawn = reading.position - (len(reading.prompt_ids) - len(steps))
    following = reading.following
    if drawn < 0 and following is not None and reading.span is not None:
        # If a token begins inside a character, its span includes that character.
        return None if following.bytes[:1] and following.bytes[0] & 0xC0 == 0x80 else prompt[: reading.span[0]]
    if drawn < 0:  # before the typed text there is only the start token
        return ""
    try:
        return prompt + b"".join(steps[:drawn]).decode()
    except UnicodeDecodeError:
        return None
