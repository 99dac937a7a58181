"""The cumulative distribution as a bar of segments, likeliest first, with a mark at u; the intervals below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from tui_llm.common import numbers as common_numbers
from tui_llm.common.display import fit, truncate, visible, visible_token
from tui_llm.instruments.draws.question import Draw, Landing, TokenInterval
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.answer_lines import AnswerLines
from tui_llm.tui.kit.widgets.lines import PALETTE

NAMED = 3  # cells that a segment needs to show part of its token
REST = "┈"  # tokens beyond the listed ones


def owners(landing: Landing, u: float, width: int) -> list[int | None]:
    """The token of each cell of the bar: the place of the token at the cell's middle, or None beyond the listed tokens.
    The cell that contains u belongs to the token that u hit, however narrow its segment is."""
    found: list[int | None] = []
    at, segments = 0, landing.segments
    for cell in range(width):
        middle = (cell + 0.5) / width
        while at < len(segments) and segments[at].stop <= middle:
            at += 1
        found.append(segments[at].place if at < len(segments) else None)
    if width > 0:
        found[min(width - 1, int(u * width))] = landing.hit.place
    return found


class DrawLines(AnswerLines):
    def __init__(self) -> None:
        super().__init__(id="draw-lines")
        self.draw: Draw | None = None
        self.names: Sequence[str] = ()
        self._segments: list[tuple[TokenInterval | None, ...]] = []  # one row per token: its segment in each landing

    def show(self, draw: Draw, names: Sequence[str]) -> None:
        self.draw, self.names = draw, names
        by_id = [{s.candidate.id: s for s in (*one.segments, one.hit)} for one in draw.landings]
        ids = list(dict.fromkeys(id for known in by_id for id in known))
        self._segments = [tuple(known.get(id) for known in by_id) for id in ids]
        self.cursor = ids.index(draw.landings[0].hit.candidate.id)
        self.rebuild()
        self._show_cursor()

    # ── the bars ─────────────────────────────────────────────────────────────────────────────────────────────────

    def head(self, width: int) -> list[Text]:
        draw = self.draw
        if draw is None:
            return self.awaited(width)
        muted = self.style("muted")
        lines = wrapped(self._summary(draw), width)[:2]
        small = self.size.height < 12
        for name, landing in zip(self.names, draw.landings, strict=True):
            if not small:
                line = Text().append(f"{name}: ", self.style("strong")).append(fmt.sampler(landing.sampler))
                line.append(f" · {fmt.count(landing.kept)} of {fmt.count(draw.vocabulary)} tokens can be drawn", muted)
                lines.append(line)
            lines += [self._bar(landing, draw.u, width), self._mark(landing, draw.u, width)]
        lines.append(
            Text(
                self._cells(width, " ", "token", [word for name in self.names for word in (f"{name} p", "from – to")]),
                style=muted,
            )
        )
        for line in lines:
            line.no_wrap = True
        return lines

    def _summary(self, draw: Draw) -> Text:
        line = Text("u = ").append(f"{draw.u:.4f}", self.style("strong"))
        for at, landing in enumerate(draw.landings):
            token = truncate(visible_token(landing.hit.candidate.text), 30)
            line.append(" → " if at == 0 else ", ").append(f"‘{token}’", self.style("generated"))
            line.append(f" at {fmt.sampler(landing.sampler)}")
        same = len({landing.hit.candidate.id for landing in draw.landings}) == 1
        return line.append(" · the same token" if same and len(draw.landings) > 1 else "", self.style("muted"))

    def _bar(self, landing: Landing, u: float, width: int) -> Text:
        by_place = {segment.place: segment for segment in (*landing.segments, landing.hit)}
        text, cells, at = Text(), owners(landing, u, width), 0
        while at < len(cells):
            end = at
            while end < len(cells) and cells[end] == cells[at]:
                end += 1
            place = cells[at]
            if place is None:
                text.append(REST * (end - at), self.style("muted"))
            else:
                label = visible_token(by_place[place].candidate.text)
                if self.plain:
                    label = "│" + label
                style = self.style(f"token-{place % PALETTE}")
                if place == landing.hit.place:
                    style += Style(bold=True, reverse=not self.plain, underline=True)
                if end - at < NAMED and cell_len(label) > end - at:
                    label = label[0] if self.plain else ""
                text.append(fit(label, end - at), style)
            at = end
        return text

    def _mark(self, landing: Landing, u: float, width: int) -> Text:
        at = min(max(0, width - 1), int(u * width))
        hit = landing.hit
        words = f"‘{truncate(visible_token(hit.candidate.text), 24)}’ {hit.start:.4f} – {hit.stop:.4f}"
        if landing.sampler.greedy:
            words = f"greedy: always ‘{truncate(visible_token(hit.candidate.text), 24)}’, u is not used"
        mark = Text("▲", self.style("accent"))
        words = truncate(words, max(width - 2, 0))
        room = Text(words).cell_len
        if at + 2 + room <= width:
            return Text(" " * at).append_text(mark).append(f" {words}")
        if room + 1 <= at:
            return Text(" " * (at - room - 1)).append(f"{words} ").append_text(mark)
        return Text(" " * at).append_text(mark)

    # ── the table ────────────────────────────────────────────────────────────────────────────────────────────────

    def _cells(self, width: int, mark: str, token: str, numbers: Sequence[str]) -> str:
        columns = [f"{p:>8}  {interval:<15}" if width >= 70 else f"{p:>8}" for p, interval in zip(numbers[::2], numbers[1::2], strict=True)]  # fmt: skip
        right = "  ".join(columns)
        return f"{mark}{fit(token, max(1, min(30, width - len(right) - 4)))}  {right}"

    def row_count(self, width: int) -> int:
        return len(self._segments)

    def selectable(self, index: int) -> bool:
        return 0 <= index < len(self._segments)

    def _hits(self, row: tuple[TokenInterval | None, ...]) -> list[bool]:
        assert self.draw is not None
        return [
            segment is not None and segment.place == landing.hit.place
            for segment, landing in zip(row, self.draw.landings, strict=True)
        ]

    def row(self, index: int, width: int, selected: bool) -> Text:
        if self.draw is None or index >= len(self._segments):
            return Text()
        row = self._segments[index]
        hits = self._hits(row)
        candidate = next(segment for segment in row if segment is not None).candidate
        numbers: list[str] = []
        for segment in row:
            numbers += ["–", ""] if segment is None else [common_numbers.percent(segment.stop - segment.start), f"{segment.start:.4f} – {segment.stop:.4f}"]  # fmt: skip
        mark = "◆" if all(hits) else "▸" if hits[0] else "▹" if any(hits) else " "
        text = Text(self._cells(width, mark, visible_token(candidate.text), numbers), no_wrap=True)
        if any(hits):
            text.stylize(self.style("strong"))
        return text

    def table(self) -> Iterable[tuple[str, ...]]:
        if self.draw is None:
            return
        header = ["id", "bytes", "text"]
        for name, landing in zip(self.names, self.draw.landings, strict=True):
            header += [f"{name} ({fmt.sampler(landing.sampler)}): {word}" for word in ("from", "to", "hit")]
        yield tuple(header)
        for row in self._segments:
            candidate = next(segment for segment in row if segment is not None).candidate
            cells = [str(candidate.id), candidate.bytes.hex(), visible(candidate.text)]
            for segment, hit in zip(row, self._hits(row), strict=True):
                cells += ["", "", ""] if segment is None else [repr(segment.start), repr(segment.stop), "u" if hit else ""]  # fmt: skip
            yield tuple(cells)
