"""The loss's target: the likeliest token until one is chosen, a typed text, with or without its leading space, or a row of
the table."""

from __future__ import annotations

from tui_llm.facts.request import Target
from tui_llm.tui.state.context import STALE, LabContext
from tui_llm.tui.state.lab import target_text


class TargetController:
    def __init__(self, context: LabContext) -> None:
        self.context, self.lab = context, context.lab

    def set(self, target: Target | None) -> None:
        self.lab.choose_target(target)
        self.context.request_reading()

    def choose(self, target: Target | None) -> None:
        """`set`, with a row of the table that is shown."""
        reading = self.context.reading
        if target is not None and reading is not None and reading.weights != self.context.weights:
            self.context.notify(STALE)  # its id is another token in the model that is open now
            return
        self.set(target)

    def type(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        def answered(text: str | None) -> None:
            if text is not None:
                self.set(Target(text=text) if text else None)

        before = self._typed()
        self.context.push_screen(
            AskScreen(
                "Target: what should come next",
                "Enter measures its loss · empty: the likeliest token · Esc cancels",
                " " if before is None else before,
                spaces=True,
            ),
            answered,
        )

    def _typed(self) -> str | None:
        """The target as text, if it was typed or follows the likeliest token."""
        if self.lab.target is not None:
            return self.lab.target.text
        return target_text(Target(likeliest=True), self.context.reading)[0]

    def toggle_space(self) -> None:
        if self.lab.target is None and (text := self._typed()) is not None:
            self.lab.target = Target(text=text)  # the likeliest token, chosen by this key
        if self.lab.toggle_leading_space():
            self.context.request_reading()
        else:
            self.context.notify("the target was chosen from the table; press t to type one")
