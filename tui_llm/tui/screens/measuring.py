"""What the Loss pane asks for beyond the reading: the gradient, and a copy that learns."""

from __future__ import annotations

from textual import on

from tui_llm.errors import UserError
from tui_llm.facts.gradient import GradientQuestion
from tui_llm.facts.learn import Watched
from tui_llm.training import pins
from tui_llm.tui.messages import GradientWanted, LearnWanted
from tui_llm.tui.panes.loss import LossPane
from tui_llm.tui.screens.inquiring import Inquiring


class Measuring(Inquiring):
    @on(GradientWanted)
    def _gradient_wanted(self, message: GradientWanted) -> None:
        pane = self.query_one(LossPane)
        if message.question is None:
            self.forget(GradientQuestion)
        else:
            self.inquire(pane, message.question, pane.show_gradient, pane.no_gradient)

    @on(LearnWanted)
    def _learn_wanted(self) -> None:
        from tui_llm.tui.screens.learning import LearnScreen

        reading = self.reading
        if reading is None or reading.loss is None or reading.loss.problem or not reading.loss.tokens:
            self.say("there is nothing to learn yet: type a prompt, and choose a target (t)")
            return
        if reading.request.number != self.lab.number:
            self.say("wait for the reading of this moment, then press L again")
            return
        try:
            watched = tuple(Watched(pin.prompt, pin.target) for pin in pins.of_user())
        except UserError as error:
            self.warn(str(error))
            watched = ()
        self.app.push_screen(LearnScreen(self, reading, watched))
