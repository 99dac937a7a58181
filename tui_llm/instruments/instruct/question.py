"""Instruction tuning: a copy of the model, fine-tuned on a few instruction–answer pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.llm.data.instruction_pairs import Pair

STEPS, LEARNING_RATE = 12, 5e-4
"""Defaults. With these, the shipped model memorizes a handful of pairs, within seconds."""
MOST_STEPS = 2000
LEARNED, LONGEST = 0.05, 200
"""A model of the preset toy needs a hundred steps until the answers' loss, in nats a token, is `LEARNED`."""


@dataclass(frozen=True, slots=True)
class InstructQuestion(Question["Instructed"]):
    """Fine-tune a copy on `pairs`, all of them in every step's batch, and write it as a new model folder. `name` as in
    `KeepQuestion`; if empty, `assistant`, or the first free `assistant-2`, `assistant-3`, … With `learned`, go on after
    `steps` until the loss is at most `learned`, up to `LONGEST` steps."""

    pairs: tuple[Pair, ...] = ()
    steps: int = STEPS
    learning_rate: float = LEARNING_RATE
    name: str = ""
    learned: float | None = None
    writes: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Instructed:
    """The pairs have `tokens` tokens; the loss covers `answer_tokens` of them, the end of each answer included.
    `before` and `after` are the mean loss in nats; losses[i] is the loss before step i + 1."""

    question: InstructQuestion
    weights: Weights
    name: str
    folder: str
    tokens: int
    answer_tokens: int
    before: float
    after: float
    losses: tuple[float, ...]
