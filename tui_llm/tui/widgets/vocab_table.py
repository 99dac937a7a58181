"""The table of candidates: one line each, drawn only where in sight, with the line where the sampler cuts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from tui_llm.display import fit, visible_token
from tui_llm.reading import Candidate, Distribution
from tui_llm.tui import format as fmt
from tui_llm.tui.widgets.lines import Lines

GAP = " "


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    width: int
    importance: int  # the least important columns go first where there is no room
    right: bool = True


def columns_for(width: int, processed: str) -> list[Column]:
    """The columns that fit into `width` cells. `processed` names the sampler's settings for the last number; a name
    of several words may take two lines.

    Room that is left over goes to the token, then to the bar.
    """
    name = f"p({processed})"
    if len(name) > max(8, width // 4):
        first, comma, rest = name.partition(", ")
        name = (
            f"{first},\n{rest}" if comma and max(len(first) + 1, len(rest)) <= max(10, width // 4) else "p after\ncuts"
        )
    all_columns = [
        Column("rank", 5, 4),
        Column("token", 12, 9, right=False),
        Column("id", 6, 1),
        Column("logit", 6, 6),
        Column("e^logit", 8, 3),
        Column("raw p", 8, 8),
        Column(name, max(8, *map(len, name.split("\n"))), 7),
        Column("bar", 5, 2, right=False),
    ]

    def total(columns: Sequence[Column]) -> int:
        return 2 + sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)

    kept = list(all_columns)
    while len(kept) > 1 and total(kept) > width:
        kept.remove(min(kept, key=lambda column: column.importance))
    spare = max(0, width - total(kept))
    widened = []
    for column in kept:
        extra = min(spare, 12) if column.name == "token" else min(spare, 60) if column.name == "bar" else 0
        spare -= extra
        widened.append(Column(column.name, max(1, column.width + extra), column.importance, column.right))
    return widened


class VocabTable(Lines):
    """Shows a `Distribution`. Rows: candidates, the cut after the last that is kept, and one row for the rest."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.distribution: Distribution | None = None
        self.target_id: int | None = None
        self._cut: int | None = None  # row of the cut line
        self._columns: list[Column] = []

    def show_distribution(self, distribution: Distribution | None, target_id: int | None = None) -> None:
        self.distribution = distribution
        self.target_id = target_id
        self._cut = None
        if distribution is not None and 0 < distribution.kept < distribution.vocabulary:
            kept = sum(candidate.kept for candidate in distribution.candidates)
            if kept and not distribution.rest.kept:
                self._cut = kept
        self.rebuild()

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def candidate_at(self, index: int | None) -> Candidate | None:
        distribution = self.distribution
        if distribution is None or index is None or index == self._cut:
            return None
        if self._cut is not None and index > self._cut:
            index -= 1
        return distribution.candidates[index] if 0 <= index < len(distribution.candidates) else None

    @property
    def selected(self) -> Candidate | None:
        return self.candidate_at(self.cursor)

    def selectable(self, index: int) -> bool:
        return self.candidate_at(index) is not None

    def row_count(self, width: int) -> int:
        if self.distribution is None:
            return 0
        rest = 1 if self.distribution.rest.count else 0
        return len(self.distribution.candidates) + (self._cut is not None) + rest

    def header(self, width: int) -> list[Text]:
        """The column names. Call it from `head`: it also decides which columns there are."""
        assert self.distribution is not None
        self._columns = columns_for(width, fmt.sampler(self.distribution.sampler))
        names = [("" if column.name == "bar" else column.name).split("\n") for column in self._columns]
        height = max(len(parts) for parts in names)
        lines = []
        for level in range(height):
            cells = []
            for column, parts in zip(self._columns, names, strict=True):
                at = level - (height - len(parts))
                part = parts[at] if at >= 0 else ""
                cells.append(part.rjust(column.width) if column.right else part.ljust(column.width))
            lines.append(Text("  " + GAP.join(cells), style=self.style("muted"), no_wrap=True))
        return lines

    def row(self, index: int, width: int, selected: bool) -> Text:
        if index == self._cut:
            return self._cut_row(width)
        candidate = self.candidate_at(index)
        return self._rest_row() if candidate is None else self._candidate_row(candidate, selected)

    def _candidate_row(self, candidate: Candidate, selected: bool) -> Text:
        out = not candidate.kept
        line = Text(no_wrap=True)
        mark = ("▸" if selected else " ") + ("◆" if candidate.id == self.target_id else " ")
        line.append(mark, self.style("accent"))
        muted, strong = self.style("muted"), self.style("strong")
        for at, column in enumerate(self._columns):
            if at:
                line.append(GAP)
            style = muted if out else None
            match column.name:
                case "rank":
                    text = fmt.count(candidate.rank)
                case "token":
                    start = len(line)
                    line.append(fit(visible_token(candidate.text), column.width), muted if out else strong)
                    if out:
                        line.stylize("strike", start, len(line.plain.rstrip()))
                    continue
                case "id":
                    text, style = str(candidate.id), muted
                case "logit":
                    text = fmt.number(candidate.logit)
                case "e^logit":
                    text = fmt.compact(candidate.exp_logit)
                case "raw p":
                    text, style = fmt.percent(candidate.raw_probability), None
                case "bar":
                    line.append(
                        fmt.bar(candidate.raw_probability if out else candidate.probability, column.width),
                        muted if out else self.style("bar"),
                    )
                    continue
                case _:
                    text = "—" if out else fmt.percent(candidate.probability)
                    style = muted if out else strong
            line.append(text.rjust(column.width), style)
        return line

    def _cut_row(self, width: int) -> Text:
        distribution = self.distribution
        assert distribution is not None and self._cut is not None
        last = distribution.candidates[self._cut - 1]
        settings = distribution.sampler
        many = "the 1 token above sums" if self._cut == 1 else f"the {fmt.count(self._cut)} tokens above sum"
        if settings.greedy:
            said = " greedy: the largest logit has it all; out below "
        else:
            total = last.cumulative if math.isfinite(last.cumulative) else distribution.kept_mass
            reach = f" ≥ {fmt.setting(100 * settings.top_p)} %" if total + 1e-9 >= settings.top_p < 1 else ""
            said = f" cut: {many} to {fmt.percent(total)}{reach} "
        said = said if len(said) + 4 <= width else " cut "
        return Text(("──" + said).ljust(width, "─")[:width], style=self.style("accent"), no_wrap=True)

    def _rest_row(self) -> Text:
        assert self.distribution is not None
        rest = self.distribution.rest
        line = Text(no_wrap=True, style=self.style("muted"))
        name = f"{fmt.count(rest.count)} others"
        if rest.kept:
            name += f", {fmt.count(rest.kept)} kept"
        cells = {column.name: column for column in self._columns}
        line.append("  ")
        before = [column for column in self._columns if column.name in ("rank", "token", "id", "logit", "e^logit")]
        room = sum(column.width for column in before) + len(GAP) * (len(before) - 1)
        line.append(fit(name, max(0, room)))
        for column in self._columns[len(before) :]:
            line.append(GAP)
            if column.name == "raw p":
                line.append(fmt.percent(rest.raw_probability).rjust(column.width))
            elif column.name == "bar":
                line.append(fmt.bar(rest.probability if rest.kept else rest.raw_probability, column.width))
            else:
                line.append((fmt.percent(rest.probability) if rest.kept else "—").rjust(column.width))
        return line if cells else Text(name)
