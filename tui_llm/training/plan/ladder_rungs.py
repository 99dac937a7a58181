"""The rungs of a ladder: what each changes in a run's settings, in a sentence with its source. Does not import torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.suggestions import no_such
from tui_llm.llm.model import switches
from tui_llm.training.run.settings import TrainingSettings

FIRST = "gpt2"  # the rung that changes nothing
MOMENTUM_WARMUP = 300  # steps, as in modded-nanogpt; …
MOMENTUM_SHARE = 0.2  # … of a short run at most this share
MUON_RATE = 2.5  # Muon's best learning rate ÷ AdamW's, in small models (dev/LOG.md)
EMA_SHARE = 0.03  # of a run's steps that its average of the weights reaches back, …
EMA_MOST = 1000  # … but at most so many


@dataclass(frozen=True, slots=True)
class Rung:
    """One idea. `changes` returns the settings that it sets in a run that has them otherwise as its argument."""

    name: str
    sentence: str
    source: str
    changes: Callable[[TrainingSettings], dict[str, Any]]


def _fixed(**changes: Any) -> Callable[[TrainingSettings], dict[str, Any]]:
    return lambda _settings: changes


def _muon(settings: TrainingSettings) -> dict[str, Any]:
    if settings.optimizer == "muon":
        return {}
    rates = {name: getattr(settings, name) * MUON_RATE for name in ("learning_rate", "min_learning_rate")}
    return {"optimizer": "muon", **rates}


def momentum_warmup(steps: int) -> int:
    """The steps in which Muon's momentum rises, in a run of `steps` steps."""
    return max(1, min(MOMENTUM_WARMUP, round(MOMENTUM_SHARE * steps)))


def ema_decay(steps: int) -> float:
    """The decay of the average of the weights in a run of `steps` steps: 1 − 1 ÷ the steps that it reaches back."""
    return round(1 - 1 / max(2.0, min(EMA_MOST, EMA_SHARE * steps)), 4)


def _switched(name: str) -> Callable[[TrainingSettings], dict[str, Any]]:
    """Adds a switch to the architecture, unless it is there."""

    def changes(settings: TrainingSettings) -> dict[str, Any]:
        before = switches.listed(settings.arch)
        return {} if name in switches.parse(before) else {"arch": ",".join([*filter(None, [before]), name])}

    return changes


_OPTIMIZER = (
    Rung(
        FIRST, "GPT-2's model, trained with AdamW: one step size for each weight, from its gradient's mean and square.",
        "Radford et al. 2019; Loshchilov and Hutter 2019, arXiv:1711.05101", _fixed(),
    ),
    Rung(
        "muon", "Muon makes the update of each matrix orthogonal, so that it moves all directions equally far; at 2.5 × the learning rate.",
        "Jordan et al. 2024, kellerjordan.github.io/posts/muon; scale: Liu et al. 2025, arXiv:2502.16982",
        _muon,
    ),
    Rung(
        "warm-momentum", "Muon's momentum rises from 0.85 to 0.95 at the start, while the gradient turns quickly.",
        "modded-nanogpt, github.com/KellerJordan/modded-nanogpt",
        lambda settings: {**_muon(settings), "momentum_warmup_steps": momentum_warmup(settings.steps)},
    ),
    Rung(
        "cautious", "Weight decay applies only to weights that the update moves towards 0 as well.",
        "Chen et al. 2025, arXiv:2510.12402", _fixed(cautious_decay="on"),
    ),
    Rung(
        "ema", "What is evaluated and exported is the exponential moving average of the weights.",
        "Polyak and Juditsky 1992; Morales-Brotons et al. 2024, arXiv:2411.18704", lambda settings: {"ema_decay": ema_decay(settings.steps)},
    ),

)  # fmt: skip
_MODERN = sorted(
    switches.SETS[switches.MODERN].split(","), key=lambda name: name != switches.ROPE
)  # the others need it
_ARCHITECTURE = tuple(
    Rung(one.name, one.sentence, one.source, _switched(one.name))
    for name in (*_MODERN, switches.WINDOW, switches.GQA)
    for one in switches.SWITCHES
    if one.name == name
)
RUNGS = (
    *_OPTIMIZER,
    *_ARCHITECTURE,
    Rung(
        "shuffle", "The documents get another order in each epoch, so that each has other neighbours in its row.",
        "Bottou 2012, “Stochastic Gradient Descent Tricks”", _fixed(shuffle_documents="on"),
    ),
)  # fmt: skip
"""All rungs, in the order in which a ladder takes them."""

DEFAULT = (*(rung.name for rung in _OPTIMIZER), *_MODERN)
"""Without what a text may not have (documents to shuffle), and what saves memory rather than tokens."""


def find(name: str) -> Rung:
    """Raises `UserError` if there is no such rung."""
    found = {rung.name: rung for rung in RUNGS}
    if name not in found:
        raise UserError(no_such("rung", name[:60], found, "; a newer tui-llm may have others"))
    return found[name]


def other_recipe(settings: TrainingSettings) -> str:
    """What of these settings is not GPT-2's recipe with AdamW, so that the rung gpt2 would be another; empty if nothing."""
    plain = {
        "optimizer": "adamw",
        "cautious_decay": "off",
        "ema_decay": 0.0,
        "shuffle_documents": "off",
        "attention_only": "off",
    }
    found = [name for name, value in plain.items() if getattr(settings, name) != value]
    found += ["arch"] * bool(switches.parse(settings.arch))
    return ", ".join(f"{name.replace('_', ' ')} {getattr(settings, name)}" for name in found)


def changed(settings: TrainingSettings, names: Sequence[str]) -> TrainingSettings:
    """`settings` with the changes of these rungs, each on top of those before it. Raises `UserError`."""
    for name in names:
        settings = dataclasses.replace(settings, **find(name).changes(settings))
    return settings


def names_changed(settings: TrainingSettings, names: Sequence[str]) -> set[str]:
    """The settings that these rungs set in a run that has `settings`."""
    return {setting for name in names for setting in find(name).changes(settings)}
