"""How the prompt becomes tokens, and what colours them: vocabulary, special tokens, start token, chat template."""

from __future__ import annotations

from tui_llm.tui.kit import token_shades as shades
from tui_llm.tui.state.context import LabContext


class TokenSettingsController:
    def __init__(self, context: LabContext) -> None:
        self.context, self.lab = context, context.lab

    def next_vocabulary(self) -> None:
        self.lab.next_vocabulary()
        self.context.request_reading()

    def toggle_special(self) -> None:
        self.context.stop_generation()
        self.lab.change_format(allow_special=not self.lab.allow_special)
        self.context.notify(
            "special tokens in the text are read as " + ("special tokens" if self.lab.allow_special else "plain text")
        )
        self.context.request_reading()

    def toggle_start_token(self) -> None:
        self.context.stop_generation()
        self.lab.change_format(start_token=not self.lab.start_token)
        self.context.request_reading()

    def toggle_chat(self) -> None:
        weights, lab = self.context.weights, self.lab
        if weights is None:
            return
        if not weights.choices.chat:
            self.context.warn(f"{weights.name} has no chat template: it is a base model and continues plain text")
            return
        self.context.stop_generation()
        lab.change_format(chat=not lab.chat)
        self.context.notify(
            "the prompt is now a message in the chat template" if lab.chat else "the prompt is now plain text"
        )
        self.context.request_reading()

    def next_colour(self) -> None:
        kinds = shades.KINDS
        self.lab.colour = kinds[(kinds.index(self.lab.colour) + 1) % len(kinds)]
        if self.lab.colour != shades.PLAIN and self.lab.tokenizer is not None:
            self.context.notify(
                f"{self.lab.colour} is computed for the model's own tokens: v returns to its vocabulary"
            )
        self.context.request_reading()
