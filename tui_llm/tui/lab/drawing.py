"""Generation in the lab: one token or a stream, clearing the tokens or moving them into the prompt."""

from __future__ import annotations

import random

from textual import on

from tui_llm.tui.lab.panes.generate import GeneratePane
from tui_llm.tui.lab.undoing import Undoing
from tui_llm.tui.state.inquire import Inquiring
from tui_llm.tui.state.lab import LARGEST_SEED
from tui_llm.tui.state.messages import Drawn, GenerationEnded, StepShown, TokensAccepted

STREAM_LENGTH = 256  # tokens; Space continues after that


class Drawing(Inquiring, Undoing):
    def action_seed(self) -> None:
        self.lab.seed = random.randint(1, LARGEST_SEED)
        self.query_one(GeneratePane).show(None)

    def action_draw(self) -> None:
        if self._job is None:
            self._generate(1)

    def action_stream(self) -> None:
        if self._job is not None:
            self.stop_stream()
        else:
            self._generate(STREAM_LENGTH)

    def _generate(self, count: int) -> None:
        if self.weights is None:
            self.say("the model is not open yet")
            return
        self.lab.note, self.lab.speed = "", None
        self.lab.place(None)  # tokens are drawn, and shown, at the end of the text
        self.lab.streaming = count > 1
        self._job = self.client.generate(self.lab.request(), self.lab.seed, count)

    def stop_stream(self) -> None:
        self.client.stop_generating()
        self.lab.streaming = False
        self._job = None

    @on(Drawn)
    def _drawn(self, message: Drawn) -> None:
        if message.job != self._job:
            return
        self.lab.steps, self.lab.speed = (*self.lab.steps, *message.tokens), message.speed
        self.lab.history.note(self.lab.prompt, self.lab.steps, burst=message.job)
        self.lab.drop_changes()
        self.tell_dropped()
        self.show_undo(changed=True)
        if message.reading is not None:
            self.show(message.reading)

    @on(GenerationEnded)
    def _generation_ended(self, message: GenerationEnded) -> None:
        if message.job != self._job:
            return
        self._job = None
        if self.lab.streaming:
            done = f"{STREAM_LENGTH} tokens drawn; Space continues"
            self.lab.note = done if message.reason == "done" else message.reason
        elif message.reason not in ("done", "stopped"):
            self.lab.note = message.reason
        self.lab.streaming = False
        self.query_one(GeneratePane).show(None)

    def action_clear_tokens(self) -> None:
        self.stop_stream()
        if self.lab.clear():
            self._steps_changed()

    def _steps_changed(self) -> None:
        self.query_one(GeneratePane).show(None)
        self.ask()

    @on(StepShown)
    def _step_shown(self, message: StepShown) -> None:
        if self.weights is None:
            self.say("the model is not open yet")
        elif message.many:
            from tui_llm.tui.instruments.draws.draw_many import DrawManyScreen

            self.app.push_screen(DrawManyScreen(self.lab, self.inquire, message.index))
        else:
            from tui_llm.tui.instruments.draws.draw import DrawScreen

            self.app.push_screen(DrawScreen(self.lab, self.inquire, message.index))

    @on(TokensAccepted)
    def _tokens_accepted(self) -> None:
        self.stop_stream()
        text = self.lab.prompt + self.lab.generated_text
        self.lab.clear("moved into the prompt and encoded again: its ids may differ from the drawn ones")
        self.prompt.set_text(text)
        self.lab.prompt = self.prompt.prompt_text
        self._steps_changed()
