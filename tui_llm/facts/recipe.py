"""Optimizer, learning rate and steps of Learn this. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tui_llm.common.errors import UserError
from tui_llm.common.suggestions import no_such

OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW"}
USUAL = {"sgd": 1e-3, "adamw": 1e-4}
"""Default learning rates. With these, one or two steps teach the shipped model something and change little else."""
LARGEST = 1000.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """`optimizer` is sgd (θ − learning_rate · gradient; no momentum, no weight decay) or adamw (betas 0.9 and 0.999,
    weight decay 0.01: torch's defaults)."""

    optimizer: str = "sgd"
    learning_rate: float = USUAL["sgd"]


def check(recipe: Recipe) -> Recipe:
    """Return `recipe`. Raises `UserError` on an unknown optimizer or a learning rate out of range."""
    if recipe.optimizer not in OPTIMIZERS:
        raise UserError(no_such("optimizer", recipe.optimizer, OPTIMIZERS))
    if not (math.isfinite(recipe.learning_rate) and 0 < recipe.learning_rate <= LARGEST):
        raise UserError(
            f"the step size is {recipe.learning_rate:g}; give one above 0 and up to {LARGEST:g}, such as 0.001"
        )
    return recipe


@dataclass(frozen=True, slots=True)
class LearnStep:
    """One optimizer step on a prompt and target. `gradient_norm` is the L2 norm of the whole gradient; `loss` (mean
    over the target's tokens, nats) and `probability` (of the whole target) are those after the step."""

    number: int
    recipe: Recipe
    gradient_norm: float
    loss: float
    probability: float
