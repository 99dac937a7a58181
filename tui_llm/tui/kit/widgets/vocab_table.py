"""The candidate table: one line per token, drawn only if visible, with a line where the sampler cuts.

It spans the whole vocabulary, but holds only the rows that it was given; the others show as `…` until they arrive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from rich.style import Style
from rich.text import Span, Text

from tui_llm.common import numbers
from tui_llm.common.display import fit, visible_token
from tui_llm.facts.prediction import LOGSUMEXP, Candidate, Distribution
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.text import packed
from tui_llm.tui.kit.widgets.lines import Lines
from tui_llm.tui.kit.widgets.vocab_columns import GAP, TableColumn, before_cuts, columns_for, stage_pages

AROUND = 256  # rows requested before and after those shown
NEAR = 64  # rows around those shown that should have arrived before they are scrolled to
HELD = 4096  # most rows held; once there are more, all are dropped
STRUCK = Style(strike=True)


class VocabTable(Lines):
    """Shows a `Distribution`: the vocabulary in `order`, a line after the last kept token, and the sum of each
    column."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.distribution: Distribution | None = None
        self.target_id: int | None = None
        self.changed: frozenset[int] = frozenset()  # ids whose logit was set by the user
        self.order = "probability"
        self.stage = 0  # 0: the overview; from 1: pages of stages
        self.stages = 0  # number of pages of stages at the current width
        self.missing = ""  # why missing rows do not arrive
        self._held: dict[int, Candidate] = {}  # by place in the order
        self._requested = range(0)
        self._cut: int | None = None  # row of the cut line
        self._columns: list[TableColumn] = []

    def show_distribution(
        self,
        distribution: Distribution | None,
        target_id: int | None = None,
        changed: Iterable[int] = (),
    ) -> None:
        self.distribution, self.target_id, self.changed = distribution, target_id, frozenset(changed)
        self._reorder()
        self.rebuild()

    def show_order(self, order: str) -> None:
        self.order = order
        self._reorder()
        self.rebuild()

    def _reorder(self) -> None:
        distribution, likeliest_first = self.distribution, self.order == "probability"
        self._held, self._requested, self._cut, self.missing = {}, range(0), None, ""
        if distribution is not None and likeliest_first:
            self._held = dict(enumerate(distribution.candidates))
            if 0 < distribution.kept < distribution.vocabulary:
                self._cut = distribution.kept

    def next_stage(self) -> None:
        """Shows the next page of stages, or the overview after the last."""
        self.stage += 1
        self.rebuild()

    # ── rows that have not arrived ───────────────────────────────────────────────────────────────────────────────

    def take_rows(self, start: int, rows: Iterable[Candidate]) -> None:
        if len(self._held) > HELD:
            self._held.clear()
        self._held.update(enumerate(rows, start))
        self.refresh()

    def show_missing(self, line: str) -> None:
        self.missing = line
        self.refresh()

    def want_rows(self, start: int, stop: int) -> None:
        """Called when rows at these places are needed; a subclass requests them."""

    def rebuild(self) -> None:
        super().rebuild()
        self._look_ahead()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._look_ahead()

    def _look_ahead(self) -> None:
        sight, distribution = self.in_sight, self.distribution
        if distribution is None or not len(sight):
            return
        count = distribution.vocabulary
        first, last = max(0, min(sight.start - NEAR, count - 1)), min(count, sight.stop + NEAR) - 1
        if all(place in self._held for place in (first, self.place(sight.start), self.place(sight.stop - 1), last)):
            return
        if first in self._requested and last in self._requested:
            return
        self._requested = range(max(0, sight.start - AROUND), min(count, sight.stop + AROUND))
        self.want_rows(self._requested.start, self._requested.stop)

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def place(self, index: int) -> int:
        """The place in the order of the row at `index`."""
        return index if self._cut is None or index < self._cut else index - 1

    def index(self, place: int) -> int:
        """The index of the row at that place in the order."""
        return place if self._cut is None or place < self._cut else place + 1

    def candidate_at(self, index: int | None) -> Candidate | None:
        if self.distribution is None or index is None or index == self._cut:
            return None
        return self._held.get(self.place(index))

    @property
    def selected(self) -> Candidate | None:
        return self.candidate_at(self.cursor)

    def selectable(self, index: int) -> bool:
        return self.distribution is not None and index != self._cut and self.place(index) < self.distribution.vocabulary

    def go_to(self, place: int) -> None:
        self._place_cursor(self.index(place))
        self._look_ahead()

    def row_count(self, width: int) -> int:
        return 0 if self.distribution is None else self.distribution.vocabulary + (self._cut is not None)

    def header(self, width: int) -> Text:
        """The columns' names. Call it from `head`: it also chooses the columns."""
        assert self.distribution is not None
        sampler = self.distribution.sampler
        pages = stage_pages(width, sampler) if self.stage else []
        if self.stage > len(pages):
            self.stage = 0
        self.stages = len(pages) if self.stage else 0
        self._columns = pages[self.stage - 1] if self.stage else columns_for(width, sampler)
        cells = []
        for column in self._columns:
            name = "" if column.name == "bar" else column.name
            cells.append(name.rjust(column.width) if column.right else name.ljust(column.width))
        return Text("  " + GAP.join(cells), style=self.style("muted"), no_wrap=True)

    def facts(self, width: int) -> list[Text]:
        """The sampler's settings, and what is known of the whole distribution; three lines at most, two in a low pane, one in
        a lower one."""
        distribution, muted, height = self.distribution, self.style("muted"), self.size.height
        most = 3 if height >= 20 else 2 if height >= 12 else 1
        if distribution is None:
            return []
        if self.stage:
            return packed([Text(part, style=muted) for part in self.shift_words()], width, " · ")[:most]
        parts = (
            f"p: {fmt.sampler(distribution.sampler)}",
            f"entropy of raw p {fmt.number(distribution.entropy)} nats = {fmt.compact(distribution.choices)} choices",
            f"{LOGSUMEXP} {fmt.number(distribution.logsumexp)}",
        )
        return packed([Text(part, style=muted) for part in parts], width, " · ")[:most]

    def stage_words(self) -> str:
        """Which page of the stages is shown and what the key C does next, for the title."""
        if not self.stage or self.distribution is None:
            return ""
        where = f"stages, page {self.stage} of {self.stages}" if self.stages > 1 else "stages"
        return f" · {where} · C: {'next page' if self.stage < self.stages else 'back'}"

    def shift_words(self) -> tuple[str, ...]:
        """What softmax subtracts before e^x, and the logarithm of the sum without that. Only the first where one line
        is shown."""
        distribution = self.distribution
        if distribution is None or distribution.sampler.greedy:
            return ("greedy: the largest logit gets probability 1; nothing is divided",)
        formula = (
            " = ln Σ e^(logit ÷ T)" if distribution.score_name == "logit" else ""
        )  # else it is too long for a line
        return (
            f"x = {distribution.score_name} ÷ T − {fmt.number(distribution.peak)}, the largest, so that no e^x overflows",
            f"{distribution.log_total_name}{formula} = {fmt.number(distribution.log_total)}",
        )

    def row(self, index: int, width: int, selected: bool) -> Text:
        if index == self._cut:
            return self._cut_row(width)
        candidate = self.candidate_at(index)
        if candidate is None:
            note = f" … {self.missing}" if self.missing else " …"
            return Text(("▸" if selected else " ") + note, style=self.style("muted"), no_wrap=True)
        return self._candidate_row(candidate, selected)

    @property
    def _greedy(self) -> bool:
        return self.distribution is not None and self.distribution.sampler.greedy

    def _candidate_row(self, candidate: Candidate, selected: bool) -> Text:
        """The row of a candidate. Text and styles are assembled once: for a frame of sixty rows, appending cell by cell
        costs more than drawing."""
        target, changed = candidate.id == self.target_id, candidate.id in self.changed
        mark = "◈" if target and changed else "◆" if target else "*" if changed else " "
        parts, spans, at = [("▸" if selected else " ") + mark], [Span(0, 2, self.style("accent"))], 2
        for number, column in enumerate(self._columns):
            if number:
                parts.append(GAP)
                at += len(GAP)
            text, style = self._cell(candidate, column)
            parts.append(text)
            if style is not None:
                struck = not candidate.kept and column.what == "token"
                spans.append(Span(at, at + len(text.rstrip() if struck else text), style + STRUCK if struck else style))
            at += len(text)
        return Text("".join(parts), spans=spans, no_wrap=True)

    def _cell(self, candidate: Candidate, column: TableColumn) -> tuple[str, Style | None]:
        """A candidate's value in a column, padded to the column's width, and its style."""
        out = not candidate.kept
        muted, strong = self.style("muted"), self.style("strong")
        style = muted if out else None
        match column.what:
            case "rank":
                text = fmt.count(candidate.rank)
            case "token":
                return fit(visible_token(candidate.text), column.width), muted if out else strong
            case "id":
                text, style = str(candidate.id), muted
            case "logit":
                text = fmt.number(candidate.logit)
            case "score":
                text = fmt.number(candidate.score)
            case "scaled":
                text = "—" if self._greedy else fmt.number(candidate.scaled)
            case "e^logit":
                text = fmt.figures(candidate.exp_logit)
            case "numerator":
                text = fmt.figures(candidate.numerator)
            case "raw p":
                text, style = numbers.percent(candidate.raw_probability), None
            case "tempered":
                text, style = numbers.percent(candidate.tempered), None
            case "cut":
                text = "cut" if out else numbers.percent(candidate.tempered)
            case "bar":
                share = candidate.raw_probability if out else candidate.probability
                return fmt.bar(share, column.width), muted if out else self.style("bar")
            case _:
                text, style = "—" if out else numbers.percent(candidate.probability), muted if out else strong
        return text.rjust(column.width), style

    @property
    def summed(self) -> str | None:
        """The name of the column in sight whose sum the cut is made on: probabilities before the cuts. None if it is
        not in sight."""
        assert self.distribution is not None
        before = before_cuts(self.distribution.sampler)
        whats = ("tempered",) if before != "raw p" or self.stage else ("tempered", "raw p")
        return next((column.name for column in self._columns if column.what in whats), None)

    def _cut_row(self, width: int) -> Text:
        distribution = self.distribution
        assert distribution is not None and self._cut is not None
        settings, above = distribution.sampler, self._cut
        if settings.greedy:
            notes = ["greedy: the largest logit gets probability 1; cut below"]
        elif not settings.cuts:
            notes = [
                "p is 0 below: less than 5e-324, the smallest float64",
                "p is 0 below: less than 5e-324",
                "p is 0 below",
            ]
        else:
            kept = f"cut: {fmt.count(above)} token{'' if above == 1 else 's'} kept"
            notes = [kept, "cut"]
            if (name := self.summed) is not None:
                mass = distribution.kept_mass
                reaches = not settings.sequential_cuts and mass + 1e-9 >= settings.top_p < 1
                sums = f"sums to {numbers.percent(mass)}" + (
                    f" ≥ {fmt.setting(100 * settings.top_p)} %" if reaches else ""
                )
                rows = "the token" if above == 1 else f"the {fmt.count(above)} tokens"
                notes = [f"cut: {name} of {rows} above {sums}", f"cut: {name} above {sums}", *notes]
        note = next((f" {note} " for note in notes if len(note) + 6 <= width), " cut ")
        return Text(("──" + note).ljust(width, "─")[:width], style=self.style("accent"), no_wrap=True)

    # ── sums ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def foot(self, width: int) -> list[Text]:
        distribution = self.distribution
        if distribution is None or self.size.height < 8:
            return []
        rows = [self.candidate_at(index) for index in self.in_sight if index != self._cut]
        there = [row for row in rows if row is not None]

        def seen(value: Callable[[Candidate], float], shown: Callable[[float], str]) -> str:
            return shown(math.fsum(map(value, there))) if len(there) == len(rows) else "…"

        whole = {
            "e^logit": fmt.figures(distribution.exp_total),
            "numerator": fmt.figures(distribution.total),
            "raw p": numbers.percent(1),
            "tempered": numbers.percent(1),
            "cut": numbers.percent(distribution.kept_mass),
            "p": numbers.percent(1),
        }
        sums = [self._sums(f"Σ all {fmt.count(distribution.vocabulary)}", whole)]
        if self.size.height < 12:
            return sums
        sight = {
            "e^logit": seen(lambda row: min(row.exp_logit, 1e300), fmt.figures),
            "numerator": seen(lambda row: row.numerator, fmt.figures),
            "raw p": seen(lambda row: row.raw_probability, numbers.percent),
            "tempered": seen(lambda row: row.tempered, numbers.percent),
            "cut": seen(lambda row: row.tempered if row.kept else 0.0, numbers.percent),
            "p": seen(lambda row: row.probability, numbers.percent),
        }
        return [self._sums(f"Σ {len(rows)} shown", sight), *sums]

    def _sums(self, name: str, sums: dict[str, str]) -> Text:
        """A line with the sums below their columns; `name` spans the columns before the first sum."""
        line = Text("  ", style=self.style("muted"), no_wrap=True)
        first = next((at for at, column in enumerate(self._columns) if column.what in sums), len(self._columns))
        before = self._columns[:first]
        line.append(fit(name, max(0, sum(column.width for column in before) + len(GAP) * (len(before) - 1))))
        for column in self._columns[first:]:
            line.append(GAP if line.cell_len > 2 else "").append(sums.get(column.what, "").rjust(column.width))
        return line
