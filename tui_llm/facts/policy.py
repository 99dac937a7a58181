"""Settings of learning from rewards by policy gradient. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tui_llm.common.errors import UserError
from tui_llm.common.suggestions import no_such

ADVANTAGES = {
    "mean": "reward − the group's mean (Dr. GRPO): unbiased in direction; a prompt with a wide range of rewards counts more",
    "std": "the same ÷ the group's standard deviation (GRPO): a group of nearly equal rewards gets as large a step as any other, so questions that are too easy or too hard count too much",
}
AVERAGES = {
    "sequence": "each answer's mean over its tokens, then the mean over answers (GRPO): long answers are pushed less per token, so long wrong ones are punished too little",
    "token": "the mean over the tokens of all answers (DAPO): every token counts the same, long answers more",
    "constant": "the sum over all tokens ÷ (answers × the most tokens of an answer) (Dr. GRPO): no bias by length",
}
CLIP = "beyond 1 ± ε, a ratio π ÷ π_old gains nothing by moving further in the advantage's direction"
"""What the clip does, wherever it is described: the minimum of r A and clip(r) A keeps a ratio that moved the other way
whole (Schulman et al. 2017, arXiv 1707.06347, equation 7)."""
MOST_SAMPLES, MOST_TOKENS, MOST_UPDATES = 64, 256, 16


def at_temperature(temperature: float) -> str:
    """What is appended to the name of a probability that is not raw but ∝ p^(1/T); empty at T = 1, where both are the same."""
    return "" if temperature == 1 else f" at T = {temperature:g}"


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The objective of a policy-gradient step on a group of K answers to one prompt (GRPO, Shao et al. 2024, arXiv
    2402.03300; its mean-only form, "Dr. GRPO", Liu et al. 2025, arXiv 2503.20783).

    advantage: one of `ADVANTAGES`; average: one of `AVERAGES`.
    clip: ε, see `CLIP`; it matters from the second update on one group on.
    beta: the weight of the KL term, which pulls towards the model as it was opened; 0 turns it off.
    temperature: of the draws, and of the policy whose log-probabilities are learned.

    Raises `UserError` if a value is out of range.
    """

    advantage: str = "mean"
    average: str = "constant"
    clip: float = 0.2
    beta: float = 0.04
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.advantage not in ADVANTAGES:
            raise UserError(no_such("advantage", self.advantage, ADVANTAGES))
        if self.average not in AVERAGES:
            raise UserError(no_such("average", self.average, AVERAGES))
        if not 0 < self.clip < 1:
            raise UserError(f"clip is {self.clip:g}; give a number between 0 and 1, such as 0.2")
        if not 0 <= self.beta <= 100:
            raise UserError(f"beta is {self.beta:g}; give a number from 0 (no KL term) to 100, such as 0.04")
        if not (math.isfinite(self.temperature) and 0.01 <= self.temperature <= 100):
            raise UserError(
                f"temperature is {self.temperature:g}; give 0.01 to 100: at 0 all answers would be the same"
            )


@dataclass(frozen=True, slots=True)
class PolicyRecipe:
    """One step: draw `samples` answers (K) of up to `tokens` tokens, then make `updates` AdamW updates (betas 0.9 and
    0.999, no weight decay, gradient norm at most 1) on them. Raises `UserError` if a value is out of range."""

    policy: PolicySettings = PolicySettings()
    samples: int = 8
    tokens: int = 24
    learning_rate: float = 1e-4
    updates: int = 1

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("samples", self.samples, 2, MOST_SAMPLES),
            ("tokens", self.tokens, 1, MOST_TOKENS),
            ("updates", self.updates, 1, MOST_UPDATES),
        ):
            if not least <= value <= most:
                raise UserError(f"{name} is {value}; give {least} to {most}")
        if not (math.isfinite(self.learning_rate) and 0 < self.learning_rate <= 1):
            raise UserError(
                f"the learning rate is {self.learning_rate:g}; give a number above 0 and up to 1, such as 0.0001"
            )
