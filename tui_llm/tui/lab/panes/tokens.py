"""The Tokens pane: the text as segments, with their ids or bytes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from tui_llm.common import numbers
from tui_llm.common.display import token_label, truncate, visible, visible_token
from tui_llm.facts.reading import Reading
from tui_llm.facts.tokens import Piece, Token, Tokenization
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit import token_shades as shades
from tui_llm.tui.kit.command import Command, CommandFactory, bindings
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.lines import PALETTE
from tui_llm.tui.lab.panes.base import ReadingPane
from tui_llm.tui.state.lab import END_OF_TEXT, Lab

VIEWS = ("ids", "bytes", "text")
_HERE = Style(reverse=True, bold=True)


def under(tokens: tuple[Token, ...], piece: Piece, view: str) -> str:
    """The line below a segment: its ids, or its bytes in hexadecimal."""
    own = tokens[piece.start : piece.stop]
    if view == "ids":
        return "+".join(str(token.id) for token in own)
    return "+".join(token.bytes.hex(" ") for token in own)


class Segment(NamedTuple):
    label: str
    note: str  # the line below it
    cells: int
    colour: int
    generated: bool
    special: bool
    shade: int | None = None  # level of the score that colours it
    tokens: range = range(0)  # which of the shown tokens it contains


@lru_cache(maxsize=1 << 13)
def labelled(text: str) -> tuple[str, int]:
    """A piece's label and its width in cells."""
    label = token_label(text)
    return label, cell_len(label)


_key = CommandFactory("tokens", "Tokens")
KEYS = (
    # In every pane
    Command("token_view", "b", "ids/bytes", "Show ids, bytes or only text under the tokens", "Tokens", "lab", "token_view", ("tokens",)),
    Command("vocabulary", "v", "vocabulary", "Split the same text with the next vocabulary, for comparison", "Tokens", "lab", "vocabulary", ("tokens",)),
    Command("special", "x", "specials", "Read <|endoftext|> typed in the prompt as the special token, or as plain text", "Tokens", "lab", "special"),
    Command("start_token", "o", "start token", "Put an explicit <|endoftext|> in front, so that the first token has a prediction", "Tokens", "lab", "start_token"),
    Command("cursor_back", "comma", "cursor back", "Move the token cursor back: every pane shows the reading before that token", "Tokens", "lab", "token_cursor(-1)"),
    Command("cursor_on", "full_stop", "cursor on", "Move the token cursor on; after the last token it is at the end", "Tokens", "lab", "token_cursor(1)"),
    # In this pane
    _key("cursor_left", "left", "left", "Move the token cursor back (, does so in every pane)", "screen.token_cursor(-1)", together="cursor"),
    _key("cursor_right", "right", "right", "Move the token cursor on (. does so in every pane)", "screen.token_cursor(1)", together="cursor"),
    _key("cursor_first", "home", "first", "Put the token cursor on the first token", "screen.token_cursor_to(0)", footer=()),
    _key("cursor_end", "end", "end", "Put the token cursor at the end again (Esc does too)", "screen.token_cursor_to(-1)", footer=()),
    _key("colour_by", "k", "colour", "Colour the tokens by surprisal, rank, probability or entropy, or only to tell them apart", "screen.colour_by"),
    _key("swap", "S", "swap", "Replace the token at the cursor by another one", "screen.swap", importance=-1),
    _key("merges", "M", "merges", "Show how the word at the cursor becomes tokens, merge by merge", "app.open('merges')"),
    _key("vocabularies", "C", "compare", "Show the text in several vocabularies side by side", "app.open('vocabularies')", importance=-1),
    _key("letters", "L", "letters", "Count a letter in the text, token by token", "app.open('letters')", importance=-1),
    _key("pairs", "E", "examples", "Show the training pairs of the text, each with the model's loss", "app.open('pairs')", importance=-1),
    # In every pane
    Command("chat", "J", "chat template", "Feed the prompt as a message in the model's chat template, or as plain text", "Tokens", "lab", "chat"),
)  # fmt: skip


class TokensPane(ReadingPane):
    NAME = "tokens"
    BINDINGS = bindings(KEYS, "tokens")

    def __init__(self, lab: Lab) -> None:
        super().__init__(id="tokens", classes="pane")
        self.lab = lab
        self.view = VIEWS[0]
        self._segments: list[list[Segment]] = []
        self._segments_of: tuple[object, ...] = ()
        self._two = False
        self._full_head = 1  # lines of the head before it is cut to half of the pane

    def on_mount(self) -> None:
        self.put_title()

    def show(self, reading: Reading) -> None:
        at_end = self.scroll_offset.y >= self.max_scroll_y
        moved = self.reading is None or self.reading.position != reading.position
        self.reading = reading
        self.rebuild()
        # Without delay, so that the scroll position and the text change in one repaint.
        if self._here is not None:
            if moved:
                self._show_here()
        elif at_end or moved:
            self.scroll_to(y=self.max_scroll_y, animate=False)

    def next_view(self) -> None:
        self.view = VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)]
        self.rebuild()

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def head(self, width: int) -> list[Text]:
        reading = self.reading
        if reading is None:
            return [Text("waiting for the model", style=self.style("muted"))]
        tokens = reading.tokens
        line = Text()
        if tokens.problem:
            line.append("no tokens", self.style("strong"))
        else:
            line.append(f"{fmt.count(tokens.count)} token{'' if tokens.count == 1 else 's'}", self.style("strong"))
        line.append(f" of {visible(tokens.tokenizer)}")
        if tokens.vocabulary:
            line.append(f", vocabulary {fmt.count(tokens.vocabulary)}{tokens.size_note}")
        line.append(" · v: another" if self.lab.tokenizer is None else " · only to compare (v)", self.style("muted"))
        lines = wrapped(line, width)
        lines += self._cursor_lines(reading, width)
        if self.shaded:
            lines += self._legend(width)
        for text, style in self._warnings(reading):
            lines += wrapped(Text(text, style=self.style(style)), width)
        of = (tokens, width, self.view, self.plain, self.lab.colour, reading.scores if self.shaded else None)
        self._two = self.two  # until the next rebuild: a line may be drawn between a change of the state and that
        if of != self._segments_of:  # most readings are of the same text as the one before
            self._segments, self._segments_of = self._layout(tokens, width), of
        room = max(1, (self.size.height + 1) // 2, self.size.height - self.row_count(width))
        self._full_head = len(lines)
        return lines[:room]

    def content_rows(self, width: int) -> int:
        return self._full_head + self.row_count(width)

    def rebuild(self) -> None:
        self.put_title()
        super().rebuild()

    def title_words(self) -> str:
        kind = self.lab.colour
        return f" · {kind}{shades.in_nats(kind)}" if self.shaded and kind != shades.PLAIN else ""

    @property
    def shaded(self) -> bool:
        """Whether there are scores to show. They are of the model's own tokens, so another vocabulary's tokens have
        none."""
        return self.reading is not None and bool(self.reading.scores) and self.reading.request.tokenizer is None

    @property
    def _here(self) -> int | None:
        """The index, among the shown tokens, of the one at the token cursor."""
        reading = self.reading
        if reading is None or reading.following is None or reading.request.tokenizer is not None:
            return None
        at = reading.position - reading.tokens.first
        return at if 0 <= at < len(reading.tokens.tokens) else None

    def _show_here(self) -> None:
        """Scrolls the row with the token cursor into view."""
        lines, here = 2 if self._two else 1, self._here
        for number, row in enumerate(self._segments):
            if any(here in segment.tokens for segment in row):
                top, room = number * lines, max(1, self.size.height - len(self._head))
                if not self.scroll_offset.y <= top <= self.scroll_offset.y + room - lines:
                    self.scroll_to(y=max(0, top - room // 2), animate=False)
                return

    def _cursor_lines(self, reading: Reading, width: int) -> list[Text]:
        """The lines about the token at the token cursor."""
        token, score = reading.following, reading.following_score
        if token is None:
            return []
        strong, muted = self.style("strong"), self.style("muted")
        line = Text(f"token {fmt.count(reading.position + 1)} of {fmt.count(len(reading.prompt_ids))}: ")
        line.append(truncate(visible_token(token.text), max(1, width // 3)) or "∅", self.style("accent"))
        line.append(f" · id {token.id}", strong)
        room = max(1, min(8, (width - line.cell_len - 10) // 3))  # how many bytes fit on the line
        line.append(f" · bytes {token.bytes[:room].hex(' ')}{'…' if len(token.bytes) > room else ''}", muted)
        if score is None:
            unseen = len(reading.prompt_ids) - reading.fed
            why = "no token is before it"
            if unseen:
                seen = f"the {fmt.count(reading.fed)} tokens that the model sees"
                why = f"it is before {seen}" if reading.position < unseen else f"it is the first of {seen}"
            return [*wrapped(line, width), *wrapped(Text(f"no prediction: {why}", style=muted), width)]
        surprisal = fmt.number(score.surprisal, numbers.loss_places([score.surprisal]))
        numbers_line = Text(f"surprisal {surprisal} nats · p {numbers.precise_percent(score.probability)}", strong)
        numbers_line.append(f" · rank {fmt.count(score.rank)} of {fmt.count(reading.weights.vocabulary)}", "not bold")
        if width >= 71:
            numbers_line.append(f" · entropy {fmt.number(score.entropy)} nats", "not bold")
        return [*wrapped(line, width), *wrapped(numbers_line, width)]

    def _legend(self, width: int) -> list[Text]:
        kind = self.lab.colour
        if kind == shades.PLAIN:
            return []
        lines = wrapped(Text(f"{kind}, {shades.unit(kind)}", style=self.style("strong")), width)[:1]
        line = Text(no_wrap=True)
        for shade, name in shades.legend(kind):
            word = f"{shade.mark} {name}"
            if line.plain and line.cell_len + 1 + cell_len(word) > width:
                lines.append(line)
                line = Text(no_wrap=True)
            line.append(" " if line.plain else "").append(word, self.style(f"token-shade-{shade.level}"))
        return [*lines, line]

    @property
    def two(self) -> bool:
        """Whether each row of segments has a second line below it."""
        return self.view != "text" or (self.shaded and self.lab.colour != shades.PLAIN)

    def _warnings(self, reading: Reading) -> Iterable[tuple[str, str]]:
        tokens, weights = reading.tokens, reading.weights
        if tokens.problem:
            yield visible(tokens.problem), "bad"
        if seen := reading.seen_words():
            yield f"… {visible(weights.name)} {seen}", "bad"
        if END_OF_TEXT in reading.request.prompt:
            if reading.request.allow_special:
                yield f"{END_OF_TEXT} typed here is the special token (x: read it as plain text)", "muted"
            else:
                yield f"{END_OF_TEXT} typed here is plain text (x: read it as the special token)", "muted"
        if reading.request.start_token:
            yield f"start token {visible(weights.choices.start)} is put in front (o: remove it)", "muted"
        elif weights.choices.starts and not reading.request.chat:
            yield (
                f"{visible(weights.name)} expects {visible(weights.choices.start)} in front (o puts it there)",
                "muted",
            )
        if reading.request.chat:
            yield "the prompt is formatted with the chat template (J: feed the plain text)", "muted"
        if tokens.continuation and not tokens.problem:
            yield f"underlined: the {fmt.count(tokens.continuation)} generated", "muted"
        if tokens.first:
            yield f"⋯ {fmt.count(tokens.first)} tokens before these are not shown", "muted"

    def row_count(self, width: int) -> int:
        return len(self._segments) * (2 if self._two else 1)

    def row(self, index: int, width: int, selected: bool) -> Text:
        """A line of a row of segments, which has one line, or two with ids or bytes below."""
        two, here = self._two, self._here
        segments = self._segments[index // 2 if two else index]
        gap = "│" if self.plain else " " if two else ""
        line, muted = Text(no_wrap=True), self.style("muted")
        for at, segment in enumerate(segments):
            if at and gap:
                line.append(gap, muted)
            if two and index % 2:
                line.append(segment.note.ljust(segment.cells), _HERE if here in segment.tokens else muted)
            else:
                padding = " " * (segment.cells - cell_len(segment.label))
                style = self._segment_style(segment)
                line.append(segment.label + padding, style + _HERE if here in segment.tokens else style)
        return line

    def _segment_style(self, segment: Segment) -> Style:
        style = self.style(f"token-{segment.colour}")
        if self.shaded and self.lab.colour != shades.PLAIN:
            style = self.style("strong") if segment.shade is None else self.style(f"token-shade-{segment.shade}")
        if segment.generated:
            style = style + self.style("generated")
        return style + self.style("accent") if segment.special else style

    def _layout(self, tokens: Tokenization, width: int) -> list[list[Segment]]:
        """The segments in rows of at most `width` cells. Styles are added later, for the visible rows only."""
        generated_from = len(tokens.tokens) - tokens.continuation
        two = self.two
        gap = 1 if self.plain or two else 0
        rows: list[list[Segment]] = [[]]
        used = 0
        for number, piece in enumerate(tokens.pieces):
            label, cells = labelled(piece.text)
            note, level = self._note(tokens, piece) if two else ("", None)
            cells = max(cells, len(note))
            if cells > width:
                label, note = truncate(label, width), truncate(note, width)
                cells = max(cell_len(label), len(note))
            if rows[-1] and used + gap + cells > width:
                rows.append([])
                used = 0
            rows[-1].append(
                Segment(
                    label,
                    note,
                    cells,
                    (tokens.first + number) % PALETTE,
                    piece.start >= generated_from,
                    piece.stop - piece.start == 1 and tokens.tokens[piece.start].special,
                    level,
                    range(piece.start, piece.stop),
                )
            )
            used += cells + (gap if used else 0)
            if "\n" in piece.text:
                rows.append([])
                used = 0
        return [row for row in rows if row]

    def _note(self, tokens: Tokenization, piece: Piece) -> tuple[str, int | None]:
        """The line below a piece, and the highest level among its tokens."""
        kind, reading = self.lab.colour, self.reading
        if kind == shades.PLAIN or not self.shaded or reading is None:
            return under(tokens.tokens, piece, self.view), None
        scores = reading.scores[piece.start : piece.stop]
        found = [shades.shade(kind, score) if score is not None else None for score in scores]
        words = "+".join(f"{shade.mark}{shade.text}" if shade else shades.UNPREDICTED for shade in found)
        return words, max((shade.level for shade in found if shade), default=None)

    def table(self) -> Iterable[tuple[str, ...]]:
        reading = self.reading
        scored = self.shaded
        yield "number", "id", "bytes", "text", *(shades.KINDS[1:] if scored else ())
        if reading is not None:
            tokens = reading.tokens
            for at, token in enumerate(tokens.tokens):
                row = (str(tokens.first + at), str(token.id), token.bytes.hex(), visible(token.text))
                kinds, score = (shades.KINDS[1:], reading.scores[at]) if scored else ((), None)
                yield *row, *("" if score is None else repr(shades.value(kind, score)) for kind in kinds)
