"""Tokens: the text as its segments, with their ids or bytes."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len
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


class TokensPane(ReadingPane, Lines):
    NAME = "tokens"

    def __init__(self, lab: Lab) -> None:
        super().__init__(id="tokens", classes="pane")
        self.lab = lab
        self.view = VIEWS[0]
        self._rows_of_text: list[Text] = []

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
        self._rows_of_text = self._layout(tokens, width)
        room = max(1, self.size.height // 2)
        return lines[:room]

    def _warnings(self, reading: Reading) -> Iterable[tuple[str, str]]:
        tokens, weights = reading.tokens, reading.weights
        if tokens.problem:
            yield visible(tokens.problem), "bad"
        if reading.fed < len(reading.prompt_ids):
            yield (f"… {visible(weights.name)} sees the last {fmt.count(reading.fed)} of "
                   f"{fmt.count(len(reading.prompt_ids))} tokens", "bad")
        if END_OF_TEXT in reading.request.prompt:
            if reading.request.allow_special:
                yield f"{END_OF_TEXT} typed here is the special token (x: read it as plain text)", "muted"
            else:
                yield f"{END_OF_TEXT} typed here is plain text (x: read it as the special token)", "muted"
        if reading.request.start_token:
            yield f"start token {END_OF_TEXT} is put in front (o: leave it out)", "muted"
        if tokens.first:
            yield f"⋯ {fmt.count(tokens.first)} tokens before these are not shown", "muted"

    def row_count(self, width: int) -> int:
        return len(self._rows_of_text)

    def row(self, index: int, width: int, selected: bool) -> Text:
        return self._rows_of_text[index].copy()

    def _layout(self, tokens: Tokenization, width: int) -> list[Text]:
        """The segments in rows; with ids or bytes a row is two lines and segments stand a cell apart."""
        generated_from = len(tokens.tokens) - tokens.continuation
        two = self.view != "text"
        gap = "│" if self.plain else " " if two else ""
        rows: list[Text] = []
        above, below, used = Text(no_wrap=True), Text(no_wrap=True), 0
        muted, generated = self.style("muted"), self.style("generated")
        colours = [self.style(f"token-{index}") for index in range(PALETTE)]

        def end_row() -> None:
            nonlocal above, below, used
            if used:
                rows.append(above)
                if two:
                    rows.append(below)
            above, below, used = Text(no_wrap=True), Text(no_wrap=True), 0

        for number, piece in enumerate(tokens.pieces):
            label = visible_token(piece.text) or "∅"
            note = under(tokens.tokens, piece, self.view) if two else ""
            cells = max(cell_len(label), cell_len(note))
            if cells > width:
                label, note = truncate(label, width), truncate(note, width)
                cells = max(cell_len(label), cell_len(note))
            if used and used + cell_len(gap) + cells > width:
                end_row()
            if used and gap:
                above.append(gap, muted)
                below.append(gap, muted)
                used += 1
            style = colours[(tokens.first + number) % PALETTE]
            if piece.start >= generated_from:
                style = style + generated
            if piece.stop - piece.start == 1 and tokens.tokens[piece.start].special:
                style = style + self.style("accent")
            above.append(label + " " * (cells - cell_len(label)), style)
            if two:
                below.append(note.ljust(cells), muted)
            used += cells
            if "\n" in piece.text:
                end_row()
        end_row()
        return rows

    def table(self) -> Iterable[tuple[str, ...]]:
        yield "number", "id", "bytes", "text"
        if self.reading is not None:
            tokens = self.reading.tokens
            for at, token in enumerate(tokens.tokens, tokens.first):
                yield str(at), str(token.id), token.bytes.hex(), visible(token.text)
