"""The columns of the candidate table: an overview, or the stages from logit to probability."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from tui_llm.common.display import visible
from tui_llm.facts.prediction import Candidate
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.tui.kit import format as fmt

GAP = " "
MOST_SPARE, SHRINKS = 12, 4  # cells that the token gets at most, and gives up at most


@dataclass(frozen=True, slots=True)
class TableColumn:
    name: str
    width: int
    importance: int  # the least important columns are dropped first if there is no room
    right: bool = True
    kind: str = ""  # what the column shows; `name` if empty

    @property
    def what(self) -> str:
        return self.kind or self.name


def total(columns: Sequence[TableColumn]) -> int:
    return 2 + sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


def columns_for(width: int, sampler: SamplerSettings) -> list[TableColumn]:
    """The overview's columns that fit into `width` cells. Spare width goes to the token, then to the bar and to the name
    of the last number, which lists the sampler's settings if they fit into one line."""
    before = before_cuts(sampler)
    full = "p(greedy)" if sampler.greedy else f"p({fmt.sampler(sampler)})"
    short = full if len(full) <= 9 else "p"
    kept = _fitted(
        width,
        [
            TableColumn("rank", 5, 4),
            TableColumn("token", 12, 9, right=False),
            TableColumn("id", 6, 1),
            TableColumn("logit", 6, 6),
            TableColumn("e^logit", 8, 3),
            TableColumn("raw p", 8, 8),
            *([TableColumn(before, max(8, len(before)), 5, kind="tempered")] if before != "raw p" else []),
            TableColumn(short, max(8, len(short)), 7, kind="p"),
            TableColumn("bar", 5, 2, right=False),
        ],
    )
    if total(kept) + len(full) - 8 + MOST_SPARE <= width:
        kept = [
            dataclasses.replace(column, name=full, width=max(8, len(full))) if column.what == "p" else column
            for column in kept
        ]
    return _widened(width, kept)


def before_cuts(sampler: SamplerSettings) -> str:
    """The column with the probabilities that the cuts are made on. It is only shown if they are neither raw p nor p."""
    if sampler.greedy or not sampler.cuts or (sampler.temperature == 1 and sampler.repetition_penalty == 1):
        return "raw p"
    return "p uncut" if sampler.repetition_penalty != 1 else f"p(T={fmt.setting(sampler.temperature)})"


def _fitted(width: int, columns: Sequence[TableColumn]) -> list[TableColumn]:
    """The columns that are kept: the token gives some of its width for all but the least important ones."""
    kept = list(columns)
    while len(kept) > 1:
        least = min(kept, key=lambda column: column.importance)
        if total(kept) - (SHRINKS if least.importance > 2 else 0) <= width:
            break
        kept.remove(least)
    return kept


def _widened(width: int, kept: Sequence[TableColumn]) -> list[TableColumn]:
    spare = width - total(kept)
    widened = []
    for column in kept:
        extra = max(0, min(spare, 60)) if column.name == "bar" else 0
        if column.name == "token":
            extra = max(-SHRINKS, min(spare, MOST_SPARE))
        spare -= extra
        widened.append(dataclasses.replace(column, width=max(1, column.width + extra)))
    return widened


def stage_columns(sampler: SamplerSettings) -> list[TableColumn]:
    """Every stage, in the order of computation."""
    penalty = sampler.repetition_penalty != 1
    return [
        TableColumn("logit", 7, 1),
        *([TableColumn("penalised", 9, 1, kind="score")] if penalty else []),
        TableColumn("÷ T", 7, 1, kind="scaled"),
        TableColumn("e^x", 8, 1, kind="numerator"),
        TableColumn("÷ sum", 8, 1, kind="tempered"),
        TableColumn("cut", 8, 1),
        TableColumn("renorm.", 8, 1, kind="p"),
    ]


def stage_pages(width: int, sampler: SamplerSettings) -> list[list[TableColumn]]:
    """The stages, in as many pages as they need at `width` cells; each page begins with the last stage of the page
    before."""
    token = TableColumn("token", 10, 9, right=False)
    left = stage_columns(sampler)
    pages = []
    while True:
        page = [token, left[0]]
        for column in left[1:]:
            if total([*page, column]) > width and len(page) > 2:
                break
            page.append(column)
        left = left[len(page) - 2 :]
        pages.append(_widened(width, page))
        if len(left) <= 1:
            return pages


COLUMNS = (  # the header of a copied table
    "rank", "id", "bytes", "text", "logit", "e^logit", "raw_probability", "probability", "cumulative", "kept",
    "penalised", "scaled", "numerator", "tempered", "changed",
)  # fmt: skip


def cells(row: Candidate, changed: bool) -> tuple[str, ...]:
    """The cells of a copied row."""
    return (
        str(row.rank),
        str(row.id),
        row.bytes.hex(),
        visible(row.text),
        repr(row.logit),
        repr(row.exp_logit),
        repr(row.raw_probability),
        repr(row.probability),
        repr(row.cumulative),
        str(row.kept).lower(),
        repr(row.score),
        repr(row.scaled),
        repr(row.numerator),
        repr(row.tempered),
        str(changed).lower(),
    )
