"""The text in several vocabularies side by side, and its words that a vocabulary of whole words could not represent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text

from tui_llm.common.display import truncate, visible, visible_token
from tui_llm.common.numbers import counted
from tui_llm.instruments.vocabularies.question import Vocabularies, VocabulariesQuestion, VocabularyTokens, WordCoverage
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import running, wrapped
from tui_llm.tui.kit.widgets.lines import PALETTE
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

PIECES = 4  # lines of pieces below each vocabulary


_key = CommandFactory("vocabularies", "Side by side")
KEYS = (
    _key("vocabularies_copy", "y", "copy", "Copy what is shown as a table (tab-separated)", "copy"),
    _key("close_vocabularies", "escape,q,C", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


def has_text_to_compare(context: LabContext) -> bool:
    if not context.lab.prompt and not context.lab.steps:
        context.notify("there is no text yet to compare: i types some")
        return False
    return True


@opens("vocabularies", LabContext.has_reading, has_text_to_compare)
class VocabulariesScreen(FullScreen):
    tour_name = "vocabularies"
    TITLE_WORDS: ClassVar[str] = "Side by side"
    own_keys = KEYS
    shows_model = False  # the vocabulary's
    shows_text = False
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self.found: Vocabularies | None = None
        self.problem = ""

    def on_mount(self) -> None:
        super().on_mount()
        self.context.questions.ask(
            self, VocabulariesQuestion(self.context.lab.current_request()), self._take, self._fail
        )

    def _take(self, found: Vocabularies) -> None:
        self.found = found
        self.refill()

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self.refill()

    def subject(self) -> str:
        found = self.found
        return f"{counted(found.characters, 'character')}, {counted(found.bytes, 'byte')}" if found is not None else ""

    def content(self, width: int) -> tuple[list[Text], list[Text]]:
        if self.problem:
            return [], wrapped(Text(visible(self.problem), style=self.style("bad")), width)
        if self.found is None:
            return [], [Text("counting the words of the training text …", style=self.style("muted"))]
        wide = width >= 60
        header = self._cells("vocabulary", "tokens in it", "tokens", "characters each", wide)
        lines: list[Text] = []
        for side in self.found.sides:
            lines += self._side(side, width, wide)
        lines += self._coverage(self.found.words, width)
        return [Text(header, style=self.style("muted"), no_wrap=True)], lines

    def _cells(self, name: str, size: str, count: str, each: str, wide: bool) -> str:
        return (
            f"{name:<18}{size:>14}{count:>10}{each:>18}"
            if wide
            else f"{name[:13]:<13}{count:>8}{each.split(' ')[0]:>12}"
        )

    def _side(self, side: VocabularyTokens, width: int, wide: bool) -> list[Text]:
        name = truncate(visible(side.name), 12) + (" (own)" if side.own else "")
        if side.tokens is None:
            line = Text(name.ljust(18), style=self.style("strong"))
            return [*wrapped(line.append(visible(side.problem), self.style("muted")), width), Text()]
        size = "any" if side.size is None else fmt.count(side.size)
        row = self._cells(name, size, fmt.count(side.count), fmt.number(side.characters_per_token, 2), wide)
        lines = [Text(row, style=self.style("strong"), no_wrap=True)]
        if side.tokens.contents:
            lines.append(
                Text(f"{fmt.count(side.size or 0)}: {side.tokens.contents}", style=self.style("muted"), no_wrap=True)
            )
        return [*lines, *self._pieces(side, width), Text()]

    def _pieces(self, side: VocabularyTokens, width: int) -> list[Text]:
        """The text as its pieces; with a character between them where there are no colours."""
        assert side.tokens is not None
        gap = "│" if self.listing.plain else ""
        lines, line = [], Text(no_wrap=True)
        for at, piece in enumerate(side.tokens.pieces):
            label = Text(truncate(visible_token(piece.text) or "∅", max(1, width)), self.style(f"token-{at % PALETTE}"))
            if line.plain and line.cell_len + len(gap) + label.cell_len > width:
                lines.append(line)
                line = Text(no_wrap=True)
                if len(lines) == PIECES:
                    break
            line.append(gap if line.plain else "").append_text(label)
        else:
            lines.append(line)
            if side.count == len(side.tokens.tokens):
                return lines
        rest = Text("⋯ the text continues", style=self.style("muted"), no_wrap=True)
        return [*lines, rest]

    def _coverage(self, words: WordCoverage, width: int) -> list[Text]:
        muted, strong = self.style("muted"), self.style("strong")
        lines = [Text("What a vocabulary of whole words could not represent", style=strong)]
        if words.problem:
            return [*lines, *wrapped(Text(visible(words.problem), style=self.style("bad")), width)]
        source = visible(words.source)
        what = (
            f"the words are those of the model's training text: {source}" if words.trained
            else f"the model's training text is not on this machine; the words are those of {source} instead"
        )  # fmt: skip
        lines += wrapped(Text(f"{what} ({words.size:,} different words)", style=muted), width)
        if not words.missing:
            return [*lines, *wrapped(Text(f"all {words.count:,} words of this text are among them"), width)]
        line = Text(
            f"{words.missing_count:,} of {words.count:,} word{'s' * (words.count != 1)} {'is' if words.missing_count == 1 else 'are'} not among them: "
        )
        for at, word in enumerate(words.missing[:200]):
            line.append(", " if at else "").append(truncate(visible(word), 40), self.style("bad"))
        return [*lines, *running(line.append(" …" if len(words.missing) > 200 else ""), width)]

    def table(self) -> Iterable[Row]:
        yield "vocabulary", "size", "tokens", "characters_per_token", "bytes_per_token", "problem"
        if self.found is not None:
            for side in self.found.sides:
                size = "" if side.size is None else str(side.size)
                numbers = (str(side.count), repr(side.characters_per_token), repr(side.bytes_per_token))
                yield visible(side.name), size, *(("", "", "") if side.problem else numbers), visible(side.problem)
