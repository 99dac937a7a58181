"""Replaces the token at the token cursor by another: opens the Swap screen, and puts the text that it makes into the lab."""

from __future__ import annotations

from collections.abc import Callable

from tui_llm.instruments.swap.question import Swapped
from tui_llm.tui.state.context import LabContext


class SwapController:
    """`to_last_token` moves the token cursor from the end to the last token."""

    def __init__(self, context: LabContext, to_last_token: Callable[[], None]) -> None:
        self.context, self.lab, self.to_last_token = context, context.lab, to_last_token

    def open(self) -> None:
        from tui_llm.tui.instruments.swap import SwapScreen

        if not (self.context.has_reading() and self.context.has_text()):
            return
        if self.lab.position is None:
            self.to_last_token()
        self.context.push_screen(SwapScreen(self.context, self.take))

    def take(self, swapped: Swapped) -> None:
        """Replaces the text by the one in which a token was swapped."""
        self.context.stop_generation()
        steps = swapped.steps
        if swapped.prompt == self.lab.prompt:  # tokens drawn before the swapped one keep the data of their draw
            both = list(zip(self.lab.steps, steps, strict=False))
            same = next((at for at, (old, new) in enumerate(both) if old.id != new.id), len(both))
            steps = (*self.lab.steps[:same], *steps[same:])
        self.context.set_prompt(swapped.prompt)
        note = "the ids after the swapped token are kept: the text is not encoded again" if not swapped.dropped else ""
        self.lab.steps, self.lab.note = steps, note
        if not swapped.dropped:
            self.lab.place(swapped.position)
        self.context.refresh_generation()
        self.context.request_reading()
        if swapped.dropped:
            gone = f"the {swapped.dropped:,} tokens" if swapped.dropped > 1 else "the token"
            self.context.notify(
                f"{gone} that followed {'are' if swapped.dropped > 1 else 'is'} drawn again; press u twice to undo"
            )
            self.context.generate(swapped.dropped)
        else:
            self.context.notify("swapped; the tokens after it are read again; u undoes")
