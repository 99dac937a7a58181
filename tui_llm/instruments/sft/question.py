"""Supervised fine-tuning (SFT): a copy of the model, fine-tuned on a few instruction–answer pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token
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

    unchanged_only: ClassVar[str] = "a copy is trained from the model as it is"
    pairs: tuple[Pair, ...] = ()
    steps: int = STEPS
    learning_rate: float = LEARNING_RATE
    name: str = ""
    learned: float | None = None
    force: bool = False
    writes: ClassVar[bool] = True
    queued: ClassVar[bool] = True  # the tour asks it too, and drops its own only


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


ANSWERED, ANSWER_TOKENS = 12, 24
"""The first so many pairs' questions are answered, with up to so many tokens each."""


@dataclass(frozen=True, slots=True)
class SftQuestion(Question["SftState"]):
    """The state of the copy after `at` steps on `pairs`: missing steps are taken, later ones are undone. With `answers`,
    also how the model and the copy answer the questions, greedily."""

    unchanged_only: ClassVar[str] = "a copy is trained from the model as it is"
    pairs: tuple[Pair, ...] = ()
    at: int = 0
    learning_rate: float = LEARNING_RATE
    answers: bool = True


@dataclass(frozen=True, slots=True)
class TunedPair:
    """The tokens of a pair's answer (the line break before it, if it is a token of its own, and the end token included) with
    their losses −ln p in nats, in the open model and in the copy; and what each answers, None if that was not asked for."""

    pair: Pair
    tokens: tuple[Token, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    answer_before: str | None
    answer_after: str | None


@dataclass(frozen=True, slots=True)
class SftState:
    """`tokens`, `answer_tokens` and `losses` as in `Instructed`; `loss` is the mean over the answers' tokens after the
    last step, `first` that of the open model."""

    question: SftQuestion
    weights: Weights
    pairs: tuple[TunedPair, ...]
    tokens: int
    answer_tokens: int
    first: float
    loss: float
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PairsFileQuestion(Question[tuple[Pair, ...]]):
    """The pairs of a file: `instruction_pairs.read`."""

    uses_parts: ClassVar[bool] = False
    path: str = ""
