"""Learn this: optimiser steps on one prompt and target, on a copy of the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tui_llm.facts.model import Weights
from tui_llm.facts.recipe import Recipe
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token

MOST_STEPS = 200
LONGEST_TARGET = 64  # tokens: where the context is full, each costs a pass of its own


@dataclass(frozen=True, slots=True)
class Watched:
    """A prompt that is not learned, to see whether the copy forgets something, and what should come next there."""

    prompt: str
    target: str | None = None


@dataclass(frozen=True, slots=True)
class LearnQuestion(Question):
    """The copy of the weights after `at` steps on the request's prompt and target: steps that are missing are taken as
    `recipe` says, those beyond are undone. So the same question again changes nothing."""

    at: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    watched: tuple[Watched, ...] = ()
    top: int = 8  # runners-up to tell of, before and after


@dataclass(frozen=True, slots=True)
class KeepQuestion(Question):
    """The copy as a new model folder: a plain `name` is one among the user's models, one with a separator is a path. With
    `force` the model files of a folder that is there are replaced."""

    name: str = ""
    force: bool = False
    writes: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class LearnStep:
    """One step. `gradient_norm` is the length of the whole gradient that it followed; loss (mean of the target's
    tokens, nats) and probability (of the whole target) are those after it."""

    number: int
    recipe: Recipe
    gradient_norm: float
    loss: float
    probability: float


@dataclass(frozen=True, slots=True)
class TargetState:
    """loss is the mean of the target's tokens in nats, probability that of all of them, rank the first one's."""

    loss: float
    probability: float
    rank: int


@dataclass(frozen=True, slots=True)
class Runner:
    """A token that is among the likeliest before or after. Raw probabilities; `target`: the target's first token."""

    token: Token
    before: float
    after: float
    rank_before: int
    rank_after: int
    target: bool


@dataclass(frozen=True, slots=True)
class WatchedChange:
    """What became of a watched prompt. loss (mean a token) and probability are its target's, None where it has none;
    `first` is the likeliest next token. divergence = Σ p ln(p ÷ q) in nats, p before and q after: 0 is unchanged."""

    watched: Watched
    loss_before: float | None
    loss_after: float | None
    probability_before: float | None
    probability_after: float | None
    first_before: Token | None
    first_after: Token | None
    divergence: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Learned:
    """The open model (before) and its copy (after `steps`). `copy_bytes` is what a copy with gradients and optimiser
    takes; `prompt` is the end of the text before the target, raw; `kept` states, in `kept_bytes`, can be gone back to at once, others are worked out again from the first one."""

    question: LearnQuestion
    weights: Weights
    prompt: str
    target: tuple[Token, ...]
    before: TargetState
    after: TargetState
    runners: tuple[Runner, ...]
    watched: tuple[WatchedChange, ...]
    steps: tuple[LearnStep, ...]
    copy_bytes: int
    kept: int
    kept_bytes: int


@dataclass(frozen=True, slots=True)
class Kept:
    name: str
    folder: str
    steps: int
