"""Opens the screens about tokens: merges, vocabularies, letters, training pairs."""

from __future__ import annotations

from tui_llm.tui.state.context import LabContext


class TokenScreensController:
    def __init__(self, context: LabContext) -> None:
        self.context = context

    def open_merges(self) -> None:
        from tui_llm.tui.instruments.merges import MergesScreen

        if self.context.has_reading():
            self.context.push_screen(MergesScreen(self.context))

    def open_vocabularies(self) -> None:
        from tui_llm.tui.instruments.vocabularies import VocabulariesScreen

        if not self.context.has_reading():
            return
        if not self.context.lab.prompt and not self.context.lab.steps:
            self.context.notify("there is no text yet to compare: i types some")
        else:
            self.context.push_screen(VocabulariesScreen(self.context))

    def open_letters(self) -> None:
        from tui_llm.tui.instruments.letters import LettersScreen

        reading = self.context.reading
        if self.context.has_reading() and self.context.has_text() and reading is not None:
            self.context.push_screen(LettersScreen(reading))

    def open_pairs(self) -> None:
        from tui_llm.tui.instruments.pairs import PairsScreen

        if self.context.has_reading() and self.context.has_text():
            self.context.push_screen(PairsScreen(self.context))
