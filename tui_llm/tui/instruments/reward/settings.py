"""The settings of Reward that are typed: what is asked, and the recipe with the new value."""

from __future__ import annotations

import dataclasses
from typing import Any

from tui_llm.facts.policy import CLIP, PolicyRecipe, PolicySettings
from tui_llm.tui.kit.ask import typed_number

ASKED = {
    "learning_rate": "Learning rate: AdamW's step size",
    "beta": "β, the weight of the KL term: the pull to the opened model; 0: none",
    "clip": f"Clip, ε: {CLIP}",
    "samples": "How many answers a group has",
    "tokens": "The most tokens of an answer",
    "updates": "How many updates each group is used for",
    "temperature": "Temperature of the draws",
}


def value_of(recipe: PolicyRecipe, name: str) -> Any:
    return getattr(recipe.policy if _in_policy(name) else recipe, name)


def changed(recipe: PolicyRecipe, name: str, text: str) -> PolicyRecipe:
    """The recipe with the typed value. Raises `UserError` if it is not a number, or out of range."""
    value = typed_number(text, value_of(recipe, name))
    if _in_policy(name):
        return dataclasses.replace(recipe, policy=dataclasses.replace(recipe.policy, **{name: value}))
    return dataclasses.replace(recipe, **{name: value})


def _in_policy(name: str) -> bool:
    return any(field.name == name for field in dataclasses.fields(PolicySettings))
