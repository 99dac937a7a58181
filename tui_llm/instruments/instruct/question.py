"""From predictor to assistant: a copy of the model, fine-tuned on a handful of instruction–answer pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.llm.data.instruction_pairs import Pair

STEPS, LEARNING_RATE = 12, 5e-4
"""With these nano knows a handful of pairs by heart, within seconds."""
MOST_STEPS = 2000


@dataclass(frozen=True, slots=True)
class InstructQuestion(Question):
    """Fine-tunes a copy on `pairs`, all of them at each of the steps, and writes it as a new model folder: `name` as for
    `KeepQuestion`; where it is empty, `assistant` or the next such name that is free."""

    pairs: tuple[Pair, ...] = ()
    steps: int = STEPS
    learning_rate: float = LEARNING_RATE
    name: str = ""
    writes: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Instructed:
    """`tokens` of the pairs, of which the loss is on `answer_tokens` alone (the end of each answer included). before and
    after: their mean loss in nats. `losses[i]` is the one before step i + 1."""

    question: InstructQuestion
    weights: Weights
    name: str
    folder: str
    tokens: int
    answer_tokens: int
    before: float
    after: float
    losses: tuple[float, ...]
