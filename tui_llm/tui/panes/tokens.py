"""Tokens: the text as its segments, with their ids or bytes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from tui_llm.display import truncate, visible, visible_token
from tui_llm.reading import Piece, Reading, Token, Tokenization
from tui_llm.tui import format as fmt
from tui_llm.tui.panes.base import ReadingPane, wrapped
from tui_llm.tui.state import END_OF_TEXT, Lab
from tui_llm.tui.widgets.lines import PALETTE, Lines

VIEWS = ("ids", "bytes", "text")


def under(tokens: tuple[Token, ...], piece: Piece, view: str) -> str:
    """What stands below a segment: its ids, or its bytes in hexadecimal."""
    own = tokens[piece.start : piece.stop]
    if view == "ids":
        return "+".join(str(token.id) for token in own)
    return "+".join(token.bytes.hex(" ") for token in own)


class Segment(NamedTuple):
    label: str
    note: str  # what stands below it
    cells: int
    colour: int
    generated: bool
    special: bool


@lru_cache(maxsize=1 << 15)
def labelled(text: str) -> tuple[str, int]:
    """A piece's label and its width in cells."""
    label = visible_token(text) or "∅"
    return label, cell_len(label)


class TokensPane(ReadingPane, Lines):
    NAME = "tokens"

    def __init__(self, lab: Lab) -> None:
        super().__init__(id="tokens", classes="pane")
        self.lab = lab
        self.view = VIEWS[0]
        self._segments: list[list[Segment]] = []

    def on_mount(self) -> None:
        self.put_title()

    def show(self, reading: Reading) -> None:
        at_end = self.scroll_offset.y >= self.max_scroll_y
        self.reading = reading
        self.rebuild()
        if at_end:
            self.call_after_refresh(self.scroll_end, animate=False)

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
        line.append(f"{fmt.count(tokens.count)} token{'' if tokens.count == 1 else 's'}", self.style("strong"))
        line.append(f" of {visible(tokens.tokenizer)}")
        if tokens.vocabulary:
            line.append(f", vocabulary {fmt.count(tokens.vocabulary)}")
        line.append(" · v: another" if self.lab.tokenizer is None else " · only to compare (v)", self.style("muted"))
        lines = wrapped(line, width)
        for text, style in self._warnings(reading):
            lines += wrapped(Text(text, style=self.style(style)), width)
        self._segments = self._layout(tokens, width)
        room = max(1, self.size.height // 2)
        return lines[:room]

    def _warnings(self, reading: Reading) -> Iterable[tuple[str, str]]:
        tokens, weights = reading.tokens, reading.weights
        if tokens.problem:
            yield visible(tokens.problem), "bad"
        if reading.fed < len(reading.prompt_ids):
            yield (
                f"… {visible(weights.name)} sees the last {fmt.count(reading.fed)} of "
                f"{fmt.count(len(reading.prompt_ids))} tokens",
                "bad",
            )
        if END_OF_TEXT in reading.request.prompt:
            if reading.request.allow_special:
                yield f"{END_OF_TEXT} typed here is the special token (x: read it as plain text)", "muted"
            else:
                yield f"{END_OF_TEXT} typed here is plain text (x: read it as the special token)", "muted"
        if reading.request.start_token:
            yield f"start token {visible(weights.start)} is put in front (o: leave it out)", "muted"
        elif weights.starts and not reading.request.chat:
            yield f"{visible(weights.name)} expects {visible(weights.start)} in front (o puts it there)", "muted"
        if reading.request.chat:
            yield "the prompt stands in the chat template (J: feed the plain text)", "muted"
        if tokens.continuation and not tokens.problem:
            yield f"underlined: the {fmt.count(tokens.continuation)} generated", "muted"
        if tokens.first:
            yield f"⋯ {fmt.count(tokens.first)} tokens before these are not shown", "muted"

    def row_count(self, width: int) -> int:
        return len(self._segments) * (2 if self.view != "text" else 1)

    def row(self, index: int, width: int, selected: bool) -> Text:
        """A row of segments is one line, or two with ids or bytes below."""
        two = self.view != "text"
        segments = self._segments[index // 2 if two else index]
        gap = "│" if self.plain else " " if two else ""
        line, muted = Text(no_wrap=True), self.style("muted")
        for at, segment in enumerate(segments):
            if at and gap:
                line.append(gap, muted)
            if two and index % 2:
                line.append(segment.note.ljust(segment.cells), muted)
            else:
                padding = " " * (segment.cells - cell_len(segment.label))
                line.append(segment.label + padding, self._segment_style(segment))
        return line

    def _segment_style(self, segment: Segment) -> Style:
        style = self.style(f"token-{segment.colour}")
        if segment.generated:
            style = style + self.style("generated")
        return style + self.style("accent") if segment.special else style

    def _layout(self, tokens: Tokenization, width: int) -> list[list[Segment]]:
        """The segments in rows of at most `width` cells. What they look like is left to the rows in sight."""
        generated_from = len(tokens.tokens) - tokens.continuation
        two = self.view != "text"
        gap = 1 if self.plain or two else 0
        rows: list[list[Segment]] = [[]]
        used = 0
        for number, piece in enumerate(tokens.pieces):
            label, cells = labelled(piece.text)
            note = under(tokens.tokens, piece, self.view) if two else ""
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
                )
            )
            used += cells + (gap if used else 0)
            if "\n" in piece.text:
                rows.append([])
                used = 0
        return [row for row in rows if row]

    def table(self) -> Iterable[tuple[str, ...]]:
        yield "number", "id", "bytes", "text"
        if self.reading is not None:
            tokens = self.reading.tokens
            for at, token in enumerate(tokens.tokens, tokens.first):
                yield str(at), str(token.id), token.bytes.hex(), visible(token.text)
