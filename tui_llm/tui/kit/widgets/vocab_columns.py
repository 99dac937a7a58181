"""The columns of the candidate table: an overview, or the stages from logit to probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tui_llm.common.display import visible
from tui_llm.facts.prediction import Candidate
from tui_llm.facts.sampler import SamplerSettings

GAP = " "


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


def columns_for(width: int, processed: str) -> list[TableColumn]:
    """The overview's columns that fit into `width` cells. `processed` describes the sampler's settings in the last
    number's header; a header of several words may take two lines. Spare width goes to the token, then to the bar."""
    name = f"p({processed})"
    if len(name) > max(8, width // 4):
        first, comma, rest = name.partition(", ")
        name = (
            f"{first},\n{rest}" if comma and max(len(first) + 1, len(rest)) <= max(10, width // 4) else "p after\ncuts"
        )
    return _fitted(
        width,
        [
            TableColumn("rank", 5, 4),
            TableColumn("token", 12, 9, right=False),
            TableColumn("id", 6, 1),
            TableColumn("logit", 6, 6),
            TableColumn("e^logit", 8, 3),
            TableColumn("raw p", 8, 8),
            TableColumn(name, max(8, *map(len, name.split("\n"))), 7, kind="p"),
            TableColumn("bar", 5, 2, right=False),
        ],
    )


def _fitted(width: int, columns: Sequence[TableColumn]) -> list[TableColumn]:
    kept = list(columns)
    while len(kept) > 1 and total(kept) > width:
        kept.remove(min(kept, key=lambda column: column.importance))
    return _widened(width, kept)


def _widened(width: int, kept: Sequence[TableColumn]) -> list[TableColumn]:
    spare = max(0, width - total(kept))
    widened = []
    for column in kept:
        extra = min(spare, 12) if column.name == "token" else min(spare, 60) if column.name == "bar" else 0
        spare -= extra
        widened.append(
            TableColumn(column.name, max(1, column.width + extra), column.importance, column.right, column.kind)
        )
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
