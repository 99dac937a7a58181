"""Head scores at each evaluation, in heads.jsonl. Does not import torch.

A line has the scores of all heads, a row a layer, rounded to 5 decimals:

    {"step": 100, "layers": 2, "heads": 4, "induction": [0.01, …], "previous": […], "duplicate": […]}

with `layers` × `heads` numbers a score, in the order of layers and heads. Runs of earlier versions have no such file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tui_llm.facts.head_scores import SCORES, HeadScore
from tui_llm.training.run import jsonl
from tui_llm.training.run.metrics import LARGEST_STEP
from tui_llm.training.run.run import Run

MOST = 1 << 16  # heads of a model

NONE_YET = (
    "no head scores: this run has had no evaluation since it writes them; runs of earlier versions have none, and a model whose "
    "context or vocabulary is too small for the detector has none either"
)


@dataclass(frozen=True, slots=True)
class HeadEvaluation:
    """The scores of all heads after `step` steps, in the order of layers and heads; step 0 is the untrained model."""

    step: int
    layers: int
    heads_per_layer: int
    scores: tuple[HeadScore, ...]


def line(step: int, scores: Iterable[HeadScore]) -> dict[str, Any]:
    """The JSON object of an evaluation; `parse` reads it."""
    found = list(scores)
    layers, heads = found[-1].layer + 1, found[-1].head + 1
    return {"step": step, "layers": layers, "heads": heads} | {
        name: [_rounded(one.of(name)) for one in found] for name in SCORES
    }


def _rounded(score: float | None) -> float:
    assert score is not None  # random tokens that are repeated have all patterns
    return round(score, 5)


def parse(value: Any) -> HeadEvaluation:
    """Raises ValueError or TypeError if the object is damaged."""
    step, layers, heads = (int(value[name]) for name in ("step", "layers", "heads"))
    columns = [[float(number) for number in value[name]] for name in SCORES]
    count = layers * heads
    if not 0 <= step < LARGEST_STEP or min(layers, heads) < 1 or count > MOST:
        raise ValueError("no such step, layer or head")
    if {len(column) for column in columns} != {count} or not all(0 <= n <= 1 for column in columns for n in column):
        raise ValueError("not a score from 0 to 1 for each head")
    made = (HeadScore(at // heads, at % heads, *(column[at] for column in columns)) for at in range(count))
    return HeadEvaluation(step, layers, heads, tuple(made))


def evaluations(run: Run) -> list[HeadEvaluation]:
    """All evaluations of a run, oldest first, one for each step; damaged lines are skipped."""
    found = {one.step: one for one in jsonl.read(run.heads_path, parse)}
    return [found[step] for step in sorted(found)]


def newest(run: Run) -> HeadEvaluation | None:
    """The newest evaluation; None if there is none."""
    found = None
    for one in jsonl.each(run.heads_path, parse):
        found = one if found is None or one.step >= found.step else found
    return found


def nearest(found: list[HeadEvaluation], step: int) -> HeadEvaluation | None:
    """The evaluation at `step` or the last before it, or the first of all."""
    before = [one for one in found if one.step <= step]
    return before[-1] if before else found[0] if found else None
