"""Generation: one token or a stream, clearing the tokens or moving them into the prompt, and the screens about a draw."""

from __future__ import annotations

import random

from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.lab import LARGEST_SEED
from tui_llm.tui.state.messages import Drawn, GenerationEnded, StepShown

STREAM_LENGTH = 256  # tokens; Space continues after that


class GenerationController:
    def __init__(self, context: LabContext) -> None:
        self.context, self.lab = context, context.lab
        self.job: int | None = None  # number of the generation whose tokens are accepted

    def new_seed(self) -> None:
        self.lab.seed = random.randint(1, LARGEST_SEED)
        self.context.refresh_generation()

    def draw(self) -> None:
        if self.job is None:
            self.generate(1)

    def stream(self) -> None:
        """Starts a stream, or stops what is running."""
        if self.job is not None:
            self.stop()
        else:
            self.generate(STREAM_LENGTH)

    def generate(self, count: int) -> None:
        if not self.context.is_open():
            return
        self.lab.note, self.lab.speed = "", None
        self.lab.place(None)  # tokens are drawn, and shown, at the end of the text
        self.lab.streaming = count > 1
        self.job = self.context.client.generate(self.lab.request(), self.lab.seed, count)

    def stop(self) -> None:
        self.context.client.stop_generating()
        self.lab.streaming = False
        self.job = None

    def drawn(self, message: Drawn) -> None:
        """Takes new tokens from the engine thread."""
        if message.job != self.job:
            return
        self.lab.steps, self.lab.speed = (*self.lab.steps, *message.tokens), message.speed
        self.lab.history.record(self.lab.prompt, self.lab.steps, burst=message.job)
        self.lab.drop_changes()
        self.context.notify_dropped()
        self.context.show_history(True)
        if message.reading is not None:
            self.context.show_reading(message.reading)

    def ended(self, message: GenerationEnded) -> None:
        if message.job != self.job:
            return
        self.job = None
        if self.lab.streaming:
            done = f"{STREAM_LENGTH} tokens drawn; Space continues"
            self.lab.note = done if message.reason == "done" else message.reason
        elif message.reason not in ("done", "stopped"):
            self.lab.note = message.reason
        self.lab.streaming = False
        self.context.refresh_generation()

    def prompt_edited(self) -> None:
        """Drops the tokens, which continued another prompt."""
        if self.lab.steps or self.job is not None:
            self.stop()
            self.lab.clear("the prompt changed: its continuation was dropped")

    def clear(self) -> None:
        self.stop()
        if self.lab.clear():
            self._steps_changed()

    def accept(self) -> None:
        """Moves the generated text into the prompt."""
        self.stop()
        text = self.lab.prompt + self.lab.generated_text
        self.lab.clear("moved into the prompt and encoded again: ids may differ")
        self.context.set_prompt(text)
        self._steps_changed()

    def _steps_changed(self) -> None:
        self.context.refresh_generation()
        self.context.request_reading()

    def show_step(self, message: StepShown) -> None:
        """Opens the screen that shows how a token was drawn, or the one that draws many."""
        if not self.context.is_open():
            return
        ask = self.context.questions.ask
        if message.many:
            from tui_llm.tui.instruments.draws.draw_many import DrawManyScreen

            self.context.push_screen(DrawManyScreen(self.lab, ask, message.index))
        else:
            from tui_llm.tui.instruments.draws.draw import DrawScreen

            self.context.push_screen(DrawScreen(self.lab, ask, message.index))
