"""The text with one token selected, coloured by that token's attention to each token, if that is known."""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual import events
from textual.color import Color
from textual.message import Message

from tui_llm.common import numbers
from tui_llm.common.display import fit, token_label, truncate, visible
from tui_llm.facts.place import Place
from tui_llm.instruments.attention.question import AttentionRow
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.shades import BLENDS, LEGEND, level, short_percent
from tui_llm.tui.kit.text import packed, wrapped
from tui_llm.tui.kit.widgets.lines import Lines

STRONGEST = 5  # tokens named in the head lines
LEAST_RANKED = 3  # lines needed below the text for a list of tokens
NUMBER = 5  # width of a number, in cells
SELECTED = "▲"


class TokenCell(NamedTuple):
    at: int
    label: str
    start: int  # cells from the left
    cells: int


class TokenText(Lines, can_focus=False):
    class Chosen(Message):
        """A token was clicked."""

        def __init__(self, number: int) -> None:
            self.number = number
            super().__init__()

    def __init__(self) -> None:
        super().__init__(id="inside-text", classes="pane")
        self.place: Place | None = None
        self.attention: AttentionRow | None = None
        self.problem = ""
        self._segments: list[list[TokenCell]] = []
        self._laid: tuple[object, ...] = ()
        self._ranked: list[int] = []  # the tokens listed below the text

    def show(self, place: Place | None, attention: AttentionRow | None, problem: str = "") -> None:
        self.place, self.attention, self.problem = place, attention, problem
        self.rebuild()
        self._keep_in_sight()

    @property
    def lines_wanted(self) -> int:
        return len(self._head) + self._rows

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def head(self, width: int) -> list[Text]:
        place, muted = self.place, self.style("muted")
        self._lay_out(width)
        lines: list[Text] = []
        if self.problem:
            lines += wrapped(Text(visible(self.problem), style=self.style("bad")), width)
        elif place is None:
            lines.append(Text("waiting for the model", style=muted))
        if place is not None and self.attention is not None:
            lines += packed(self._strongest(place, self.attention), width)[:2]
            lines += wrapped(Text(f"{LEGEND} · later tokens are masked", style=muted), width)[:1]
        if place is not None and place.first:
            fed = f"the model sees the last {fmt.count(len(place.tokens))} of {fmt.count(place.count)} tokens"
            lines += wrapped(Text(fed, style=muted), width)[:1]
        return lines[: max(1, self.size.height // 2)]

    def _strongest(self, place: Place, attention: AttentionRow) -> list[Text]:
        muted = self.style("muted")
        order = sorted(range(len(attention.weights)), key=lambda at: -attention.weights[at])[:STRONGEST]
        parts = []
        for nth, at in enumerate(order):
            part = Text("" if nth else "attends to ", muted)
            part.append(truncate(token_label(place.tokens[at].text), 20), self.style("strong"))
            parts.append(part.append(f" {numbers.percent(attention.weights[at])}"))
        return [*parts, Text(f"{fmt.number(attention.effective_tokens, 1)} effective tokens", muted)]

    @property
    def _two(self) -> bool:
        return self.attention is not None

    def row_count(self, width: int) -> int:
        lines = len(self._segments) * (2 if self._two else 1)
        self._ranked = []
        room = self.size.height - len(self._head) - lines - 1
        if self.attention is not None and room >= LEAST_RANKED:
            weights = self.attention.weights
            self._ranked = sorted(range(len(weights)), key=lambda at: -weights[at])[:room]
        return lines + (1 + len(self._ranked) if self._ranked else 0)

    def row(self, index: int, width: int, selected: bool) -> Text:
        """Segments and, below them, the weight of each; then, if there is room, the tokens ordered by weight."""
        place = self.place
        assert place is not None
        line, at = Text(no_wrap=True), index // 2 if self._two else index
        if at >= len(self._segments):
            nth = index - 2 * len(self._segments) - 1
            return self._ranked_row(place, self._ranked[nth], width) if nth >= 0 else line
        for segment in self._segments[at]:
            line.append(" " * (segment.start - line.cell_len))
            if self._two and index % 2:
                line.append(self._note(place, segment.at), self.style("muted"))
            else:
                line.append(segment.label, self._segment_style(place, segment.at))
        return line

    def _ranked_row(self, place: Place, at: int, width: int) -> Text:
        assert self.attention is not None
        weight = self.attention.weights[at]
        line = Text(no_wrap=True).append(fmt.count(place.first + at + 1).rjust(NUMBER) + "  ", self.style("muted"))
        line.append(fit(token_label(place.tokens[at].text), 16), self.style("strong"))
        line.append(numbers.percent(weight).rjust(9) + "  ", "not bold")
        return line.append(fmt.bar(weight, max(0, min(60, width - line.cell_len))), self.style("bar"))

    def _note(self, place: Place, index: int) -> str:
        assert self.attention is not None
        if index > place.index:
            return ""
        text = short_percent(self.attention.weights[index])
        return SELECTED + text if index == place.index else text

    def _segment_style(self, place: Place, index: int) -> Style:
        if self.attention is None:
            style = self.style(f"token-{(place.first + index) % 6}")
        elif index > place.index:
            style = self.style("muted")
        else:
            style = self._tint(level(self.attention.weights[index]))
        if index == place.index:
            style = style + Style(bold=True, underline=True, reverse=self.attention is None)
        return style

    def _tint(self, number: int) -> Style:
        name = f"tint {number}"
        if name not in self._styles:
            colour = Color.parse(self.app.theme_variables["primary"])
            ground = self.background_colors[1].blend(colour, BLENDS[number])
            self._styles[name] = Style(
                color=ground.get_contrast_text(1.0).rich_color, bgcolor=ground.rich_color if number else None
            )
        return self._styles[name]

    def _lay_out(self, width: int) -> None:
        place = self.place
        key = (place.tokens if place else None, self._two, width)
        if key == self._laid:
            return
        self._laid = key
        rows: list[list[TokenCell]] = [[]]
        used = 0
        for index, token in enumerate(place.tokens if place else ()):
            label = truncate(token_label(token.text), max(1, width))
            cells = max(cell_len(label), 5 if self._two else 0)  # ▲100%
            if rows[-1] and used + 1 + cells > width:
                rows.append([])
                used = 0
            start = used + (1 if rows[-1] else 0)
            rows[-1].append(TokenCell(index, label, start, cells))
            used = start + cells
        self._segments = [row for row in rows if row]

    def _keep_in_sight(self) -> None:
        if self.place is None:
            return
        per = 2 if self._two else 1
        for at, segments in enumerate(self._segments):
            if segments[-1].at >= self.place.index:
                room = max(per, self.scrollable_content_region.height - len(self._head))
                top = self.scroll_offset.y
                if at * per < top or (at + 1) * per > top + room:
                    self.scroll_to(y=max(0, (at + 1) * per - room // 2), animate=False)
                return

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self._keep_in_sight()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None or self.place is None or offset.y < len(self._head):
            return
        row = (offset.y - len(self._head) + self.scroll_offset.y) // (2 if self._two else 1)
        for segment in self._segments[row] if row < len(self._segments) else ():
            if segment.start <= offset.x <= segment.start + segment.cells:
                self.post_message(self.Chosen(self.place.first + segment.at))
                return
