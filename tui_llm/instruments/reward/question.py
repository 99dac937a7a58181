"""Reward: draw answers to a prompt, score them by a rule, learn from the scores; on a copy of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from tui_llm.facts.model import Weights
from tui_llm.facts.policy import PolicyRecipe
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token

MOST_STEPS = 200
WINDOW = 3  # steps whose mean is compared at both ends
RISE = 1.25, 0.1  # the mean reward has risen if it is above this factor times its beginning, plus this
FAR = 0.5  # nats a token: the policy is far from the opened model


@dataclass(frozen=True, slots=True)
class RewardPreset:
    """A prompt, a rule and a recipe that show something with nano. `shows` is what, in one line."""

    name: str
    prompt: str
    spec: str
    recipe: PolicyRecipe
    shows: str


PRESETS = (
    RewardPreset(
        "word",
        "Once upon a time there was a girl. She was",
        "contains:happy",
        PolicyRecipe(),
        "contains a word: the mean reward rises from under 0.2 to over 0.6 in 20 steps",
    ),
    RewardPreset(
        "hack",
        "Once upon a time there was a girl. She was",
        "count:happy",
        PolicyRecipe(learning_rate=3e-4),
        "reward hacking: the rule counts a word, and within 20 steps the answers are that word alone",
    ),
)


@dataclass(frozen=True, slots=True)
class RewardQuestion(Question["RewardRun"]):
    """The copy after `at` steps on the request's prompt. Missing steps are taken: a group is drawn, scored by `spec`
    (`llm/learn/reward.py`) and learned with `recipe`; later ones are undone, and so are those from the first on that was
    taken with another rule, recipe or seed. None: as many as have been taken since the model was opened.

    keep: this many of the first steps stay whatever they were taken with: the rule can change on the way.
    seed: of all draws; answer number k of step n has the seed `row_seed(seed, n · samples + k)`.
    scores: of the next group, if `spec` is `hand`.
    ahead: also draw and score the next group, which is not learned yet.
    fresh: on a new copy, which is dropped afterwards: for commands and Python.
    score: a function of an answer's text that takes the place of the rule; `spec` is then only its name.
    """

    unchanged_only: ClassVar[str] = "a copy is trained from the model as it is"
    at: int | None = 0
    spec: str = PRESETS[0].spec
    recipe: PolicyRecipe = field(default_factory=PolicyRecipe)
    seed: int = 1
    scores: tuple[float, ...] | None = None
    ahead: bool = True
    fresh: bool = False
    score: Callable[[str], float] | None = None
    keep: int = 0


@dataclass(frozen=True, slots=True)
class RewardStep:
    """A step, learned or still to be learned, in numbers.

    mean, deviation: of the rewards; None while they are given by hand.
    kl: estimate of KL(π ‖ ref) of the policy that drew the group, mean per token, in nats; ref is the opened model,
        both at the recipe's temperature.
    distinct: how many of the answers differ; variety: different tokens ÷ all tokens of the group ("distinct-1", Li et
        al. 2016, arXiv 1510.03055).
    learned: whether the weights moved; `why_not`: why they did not, if the step has been taken.
    loss, gradient_norm, clipped: of the last update.
    """

    number: int
    spec: str
    recipe: PolicyRecipe
    mean: float | None
    deviation: float | None
    kl: float
    distinct: int
    variety: float
    learned: bool = False
    why_not: str = ""
    loss: float = 0.0
    gradient_norm: float = 0.0
    clipped: float = 0.0


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """An answer with its reward and advantage, None while they are given by hand. before, after: ln π of each token before
    and after the step, in nats, at the recipe's temperature; `after` is empty if it has not been learned. `ended`: its last
    token is an end-of-text token, which is not part of `text`."""

    tokens: tuple[Token, ...]
    text: str
    seed: int
    ended: bool
    reward: float | None
    advantage: float | None
    before: tuple[float, ...]
    after: tuple[float, ...] = ()

    @property
    def change(self) -> float | None:
        """The change of ln π of the whole answer, in nats."""
        return sum(self.after) - sum(self.before) if self.after else None


@dataclass(frozen=True, slots=True)
class RewardGroup:
    step: RewardStep
    answers: tuple[ScoredAnswer, ...]


@dataclass(frozen=True, slots=True)
class RewardRun:
    """The steps taken so far, and the group to show: with `ahead` the next one, which is not learned yet, else the last one.

    prompt: the end of its text, raw.
    copy_bytes: memory of a copy with gradients and optimizer state; stored, stored_bytes: states that undo restores at
        once; it recomputes older ones.
    """

    question: RewardQuestion
    weights: Weights
    prompt: str
    steps: tuple[RewardStep, ...]
    group: RewardGroup
    ahead: bool
    copy_bytes: int
    stored: int
    stored_bytes: int

    @property
    def mean_rewards(self) -> tuple[float, ...]:
        return tuple(step.mean for step in self.steps if step.mean is not None)

    @property
    def kl(self) -> tuple[float, ...]:
        return tuple(step.kl for step in self.steps)


@dataclass(frozen=True, slots=True)
class SaveRewardedQuestion(Question["SavedRewarded"]):
    """Write the copy as a new model folder, with `name` and `force` as in `KeepQuestion`."""

    unchanged_only: ClassVar[str] = "a copy is saved of the model as it is"
    name: str = ""
    force: bool = False
    writes: ClassVar[bool] = True
    queued: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class SavedRewarded:
    name: str
    folder: str
    steps: int


def hacking(steps: Sequence[RewardStep]) -> str:
    """A line that says it when the mean reward has risen while the policy moved far away or the answers became alike;
    else empty. Compares the first with the last `WINDOW` steps of one rule."""
    same = [step for step in steps if step.mean is not None and step.spec == steps[-1].spec]
    if len(same) < 2 * WINDOW:
        return ""
    ends = same[:WINDOW], same[-WINDOW:]
    (low, kl_low, varied), (high, kl_high, alike) = (
        tuple(sum(values) / WINDOW for values in zip(*((s.mean or 0.0, s.kl, s.variety) for s in part), strict=True))
        for part in ends
    )
    if high <= RISE[0] * low + RISE[1]:
        return ""
    few = same[-1].distinct <= same[-1].recipe.samples // 2
    signs = [f"KL to the opened model grew from {kl_low:.2f} to {kl_high:.2f} nats a token"] if kl_high >= FAR else []
    if alike < varied / 2:
        signs.append(f"different tokens fell from {varied:.0%} to {alike:.0%}")
    if few:
        signs.append(f"{same[-1].distinct} of {same[-1].recipe.samples} answers differ")
    if not signs:
        return ""
    return f"reward hacking? the mean reward rose from {low:.2f} to {high:.2f} while " + ", ".join(signs) + ": the rule is met; read whether the text is what you meant"  # fmt: skip
