"""The Letters screen: counts a letter across tokens, whose letters the model does not see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text

from tui_llm.common.display import fit, truncate, visible, visible_token
from tui_llm.common.errors import UserError
from tui_llm.llm.tokens import letters
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen, Lazy
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

_key = CommandFactory("letters", "Letters")
KEYS = (
    _key("letters_type", "t", "letter", "Type the letter to count", "type"),
    _key("letters_all", "a", "all tokens", "Show all tokens, or only those that contain the letter", "all"),
    _key("letters_copy", "y", "copy", "Copy what is shown as a table (tab-separated)", "copy"),
    _key("close_letters", "escape,q,L", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


def has_tokens(context: LabContext) -> bool:
    """Whether the text could be encoded; if not, notifies the user: a count of no tokens would be false."""
    problem = context.reading.tokens.problem if context.reading is not None else None
    if problem:
        context.warn(f"no tokens to count letters in: {problem}")
    return not problem


@opens("letters", LabContext.has_reading, LabContext.has_text, LabContext.has_current_reading, has_tokens)
class LettersScreen(FullScreen):
    tour_name = "letters"
    TITLE_WORDS: ClassVar[str] = "Letters"
    own_keys = KEYS
    shows_model = False  # the vocabulary's
    shows_text = False
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        assert context.reading is not None
        self.tokens = context.reading.tokens
        self.every = True
        self._set(self._likely())

    def _likely(self) -> str:
        """The first letter to count: r, as in strawberry, if the text has one; else the text's first letter."""
        text = "".join(token.text for token in self.tokens.tokens if not token.special)
        return "r" if "r" in text.lower() else next((c for c in text.lower() if c.isalpha()), "r")

    def _set(self, letter: str) -> None:
        self.found = letters.count([token.bytes for token in self.tokens.tokens], letter)

    def subject(self) -> str:
        return f"in {self.tokens.count:,} token{'s' * (self.tokens.count != 1)} of {self.tokens.tokenizer}"

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        strong, muted = self.style("strong"), self.style("muted")
        found, holding = self.found, sum(map(bool, self.found.inside))
        line = Text("the letter ").append(truncate(visible(found.letter), 8), self.style("accent"))
        line.append(" occurs ").append(f"{fmt.count(found.total)} time{'' if found.total == 1 else 's'}", strong)
        line.append(
            f", in {fmt.count(holding)} of {fmt.count(len(found.inside))} token{'s' * (len(found.inside) != 1)} (upper and lower case alike)"
        )
        head = wrapped(line, width)
        if found.total:
            head += wrapped(
                Text(
                    "The model sees ids, not letters: it can only have memorized how many there are.",
                    style=muted,
                ),
                width,
            )
        if found.split:
            head += wrapped(
                Text(f"{found.split:,} of them split: their bytes are in more than one token", style=muted), width
            )
        if self.tokens.first:
            head += wrapped(Text(f"of the last {len(self.tokens.tokens):,} tokens", style=muted), width)
        room = max(4, width - 20)
        head.append(Text(fit("token", room) + "id".rjust(10) + "times".rjust(10), style=muted, no_wrap=True))
        shown = [at for at, inside in enumerate(found.inside) if inside or self.every]
        return head, Lazy(len(shown), lambda at: self._row(shown[at], room))

    def _row(self, at: int, room: int) -> Text:
        token, inside = self.tokens.tokens[at], self.found.inside[at]
        row, muted, label = Text(no_wrap=True), self.style("muted"), visible_token(token.text) or "∅"
        for part, is_it in letters.marked(label, self.found.letter) if inside else [(label, False)]:
            row.append(part, self.style("accent") if is_it else "")
        if row.cell_len > room:
            row = Text(fit(label, room), no_wrap=True)
        row.append(" " * (room - row.cell_len)).append(str(token.id).rjust(10), muted)
        return row.append(str(inside).rjust(10), self.style("strong") if inside else muted)

    def table(self) -> Iterable[Row]:
        yield "number", "id", "text", "letters"
        for at, (token, inside) in enumerate(
            zip(self.tokens.tokens, self.found.inside, strict=True), self.tokens.first
        ):
            yield str(at), str(token.id), visible(token.text), str(inside)

    def action_type(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        def answered(text: str | None) -> None:
            if not text:
                return
            try:
                self._set(letters.one_letter(text))
            except UserError as error:
                self.notify(visible(str(error)), severity="error", markup=False)
            self.refill()

        self.app.push_screen(AskScreen("The letter to count", "one letter, then Enter", spaces=True), answered)

    def action_all(self) -> None:
        self.every = not self.every
        self.refill()
