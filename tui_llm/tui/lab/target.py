"""The loss's target: a typed text, with or without its leading space, or a row of the table."""

from __future__ import annotations

from tui_llm.facts.request import Target
from tui_llm.tui.state.context import LabContext


class TargetController:
    def __init__(self, context: LabContext) -> None:
        self.context, self.lab = context, context.lab

    def set(self, target: Target | None) -> None:
        self.lab.target = target
        self.context.request_reading()

    def type(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        before = self.lab.target.text if self.lab.target is not None else None

        def answered(text: str | None) -> None:
            if text is not None:
                self.set(Target(text=text) if text else None)

        self.context.push_screen(
            AskScreen(
                "Target: what should come next",
                "Enter measures its loss · Esc cancels · a leading space counts",
                " " if before is None else before,
            ),
            answered,
        )

    def toggle_space(self) -> None:
        if self.lab.toggle_leading_space():
            self.context.request_reading()
        else:
            self.context.notify("the target was chosen from the table; press t to type one")
