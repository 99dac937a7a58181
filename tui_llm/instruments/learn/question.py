"""Learn this: optimizer steps on one prompt and target, on a copy of the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tui_llm.facts.model import Weights
from tui_llm.facts.pin import Pin
from tui_llm.facts.recipe import LearnStep, Recipe
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token

MOST_STEPS = 200
LONGEST_TARGET = 64  # tokens: once the context is full, each takes a forward pass of its own


@dataclass(frozen=True, slots=True)
class LearnQuestion(Question["Learned"]):
    """The state of the copy after `at` steps on the request's prompt and target. Missing steps are taken with `recipe`,
    later ones are undone, so asking the same question twice changes nothing. `pins` are not trained on: they show what
    else changes."""

    unchanged_only: ClassVar[str] = "a copy is trained from the model as it is"
    at: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    pins: tuple[Pin, ...] = ()
    top: int = 8  # number of other tokens to report, before and after


@dataclass(frozen=True, slots=True)
class KeepQuestion(Question["Kept"]):
    """Write the copy as a new model folder: a plain `name` goes into the user's models folder, a name with a separator
    is a path. With `force`, the model files of an existing folder are replaced."""

    unchanged_only: ClassVar[str] = "a copy is saved of the model as it is"
    name: str = ""
    force: bool = False
    writes: ClassVar[bool] = True
    queued: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class TargetState:
    """`loss` is the mean over the target's tokens in nats, `probability` that of the whole target, `rank` that of its
    first token."""

    loss: float
    probability: float
    rank: int


@dataclass(frozen=True, slots=True)
class CandidateChange:
    """A token that is among the most probable before or after. Raw probabilities; `target`: it is the target's first
    token."""

    token: Token
    before: float
    after: float
    rank_before: int
    rank_after: int
    target: bool


@dataclass(frozen=True, slots=True)
class PinChange:
    """The change in the predictions for a pin.

    loss (mean per token, nats), probability: of its target; None without one.
    first: the most probable next token.
    divergence: KL(p ‖ q) = Σ p ln(p ÷ q) in nats, p before and q after; 0 = identical.
    problem: why it can't be read.
    """

    pin: Pin
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
    """The open model (before) compared with its copy (after `steps`).

    prompt: the end of the text before the target, raw.
    copy_bytes: memory of a copy with gradients and optimizer state.
    kept: number of stored earlier states, which take `kept_bytes`. Undo restores these at once and recomputes others
        from the start.
    """

    question: LearnQuestion
    weights: Weights
    prompt: str
    target: tuple[Token, ...]
    before: TargetState
    after: TargetState
    candidates: tuple[CandidateChange, ...]
    pins: tuple[PinChange, ...]
    steps: tuple[LearnStep, ...]
    copy_bytes: int
    kept: int
    kept_bytes: int


@dataclass(frozen=True, slots=True)
class Kept:
    name: str
    folder: str
    steps: int
