"""What the Loss pane shows beyond the reading: the gradient, and Learn this."""

from __future__ import annotations

from textual import on

from tui_llm.common.errors import UserError
from tui_llm.instruments.gradient.question import GradientQuestion
from tui_llm.training.run import pins
from tui_llm.tui.lab.panes.loss import LossPane
from tui_llm.tui.state.inquire import Inquiring
from tui_llm.tui.state.messages import GradientWanted, LearnWanted


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
        from tui_llm.tui.instruments.learn.learn import LearnScreen

        reading = self.reading
        if reading is None or reading.loss is None or reading.loss.problem or not reading.loss.tokens:
            self.say("there is nothing to learn yet: type a prompt, and choose a target (t)")
            return
        if reading.request.number != self.lab.number:
            self.say("the panes are still updating; press L again")
            return
        try:
            pinned = tuple(pins.of_user())
        except UserError as error:
            self.warn(str(error))
            pinned = ()
        self.app.push_screen(LearnScreen(self, reading, pinned))
