"""The token cursor, and the screens about tokens."""

from __future__ import annotations

from tui_llm.instruments.swap.question import Swapped
from tui_llm.tui.kit import token_shades as shades
from tui_llm.tui.lab.drawing import Drawing
from tui_llm.tui.state.inquire import Inquiring


class TokenTools(Drawing, Inquiring):
    # ── the cursor ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _count(self) -> int:
        return len(self.reading.prompt_ids) if self.reading is not None else 0

    def action_token_cursor(self, direction: int) -> None:
        count = self._count
        now = self.lab.position
        place = (count if now is None else min(now, count)) + direction
        if count:
            self._put_cursor(max(0, place), count)

    def action_token_cursor_to(self, place: int) -> None:
        """Moves the token cursor to token `place`, or to the end (−1)."""
        if self._count:
            self._put_cursor(place if place >= 0 else self._count, self._count)

    def _put_cursor(self, place: int, count: int) -> None:
        before = self.lab.position
        self.lab.place(place if place < count else None)
        if self.lab.position != before:
            self.ask()

    # ── colours ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_colour_by(self) -> None:
        kinds = shades.KINDS
        self.lab.colour = kinds[(kinds.index(self.lab.colour) + 1) % len(kinds)]
        if self.lab.colour != shades.PLAIN and self.lab.tokenizer is not None:
            self.say(f"{self.lab.colour} is computed for the model's own tokens: v returns to its vocabulary")
        self.ask()

    # ── screens ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_merges(self) -> None:
        from tui_llm.tui.instruments.merges import MergesScreen

        if self._ready():
            self.app.push_screen(MergesScreen(self))

    def action_vocabularies(self) -> None:
        from tui_llm.tui.instruments.vocabularies import VocabulariesScreen

        if self._ready() and not self.lab.prompt and not self.lab.steps:
            self.say("there is no text yet to compare: i types some")
        elif self._ready():
            self.app.push_screen(VocabulariesScreen(self))

    def action_letters(self) -> None:
        from tui_llm.tui.instruments.letters import LettersScreen

        if self._ready() and self.has_text() and self.reading is not None:
            self.app.push_screen(LettersScreen(self.reading))

    def action_pairs(self) -> None:
        from tui_llm.tui.instruments.pairs import PairsScreen

        if self._ready() and self.has_text():
            self.app.push_screen(PairsScreen(self))

    def action_swap(self) -> None:
        from tui_llm.tui.instruments.swap import SwapScreen

        if not (self._ready() and self.has_text()):
            return
        if self.lab.position is None:
            self.action_token_cursor(-1)
        self.app.push_screen(SwapScreen(self, self.take_swapped))

    def take_swapped(self, swapped: Swapped) -> None:
        """Replaces the text by the one in which a token was swapped."""
        self.stop_stream()
        steps = swapped.steps
        if swapped.prompt == self.lab.prompt:  # tokens drawn before the swapped one keep the data of their draw
            both = list(zip(self.lab.steps, steps, strict=False))
            same = next((at for at, (old, new) in enumerate(both) if old.id != new.id), len(both))
            steps = (*self.lab.steps[:same], *steps[same:])
        self.prompt.set_text(swapped.prompt)
        note = "the ids after the swapped token are kept: the text is not encoded again" if not swapped.dropped else ""
        self.lab.rewrite(self.prompt.prompt_text, steps, note)
        if not swapped.dropped:
            self.lab.place(swapped.position)
        self._steps_changed()
        if swapped.dropped:
            gone = f"the {swapped.dropped:,} tokens" if swapped.dropped > 1 else "the token"
            self.say(
                f"{gone} that followed {'are' if swapped.dropped > 1 else 'is'} drawn again; press u twice to undo"
            )
            self._generate(swapped.dropped)
        else:
            self.say("swapped; the tokens after it are read again; u undoes")

    def _ready(self) -> bool:
        if self.reading is None:
            self.say("the model is not open yet")
        return self.reading is not None
