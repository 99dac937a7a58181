"""What the Loss pane shows beyond the reading: the gradient, and Learn this."""

from __future__ import annotations

from tui_llm.common.errors import UserError
from tui_llm.instruments.gradient.question import GradientQuestion
from tui_llm.training.run import pins
from tui_llm.tui.lab.panes.loss import LossPane
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.messages import GradientWanted


class LossController:
    def __init__(self, context: LabContext, pane: LossPane) -> None:
        self.context, self.pane = context, pane

    def ask_gradient(self, message: GradientWanted) -> None:
        if message.question is None:
            self.context.questions.forget(GradientQuestion)
        else:
            self.context.questions.ask(self.pane, message.question, self.pane.show_gradient, self.pane.no_gradient)

    def learn(self) -> None:
        from tui_llm.tui.instruments.learn.learn import LearnScreen

        reading = self.context.reading
        if reading is None or reading.loss is None or reading.loss.problem or not reading.loss.tokens:
            self.context.notify("there is nothing to learn yet: type a prompt, and choose a target (t)")
            return
        if not self.context.is_unchanged():
            return
        if not self.context.has_current_reading():
            return
        try:
            pinned = tuple(pins.of_user())
        except UserError as error:
            self.context.warn(str(error))
            pinned = ()
        self.context.push_screen(LearnScreen(self.context, reading, pinned))
