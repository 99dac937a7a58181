"""The architecture switches: what can differ from GPT-2, what each does, and which layout of transformers can hold it.

`SWITCHES` and `LAYOUTS` are the one statement of this: the form, the command line, their help and the docs are made from
them. No torch here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

from tui_llm.common.errors import UserError
from tui_llm.common.suggestions import no_such
from tui_llm.llm.model.shape import GPTConfig


class Switch(NamedTuple):
    """One switch. number: what `NAME=NUMBER` sets, and what it is without; empty if the switch has no number. least: the
    smallest number."""

    name: str
    sentence: str
    source: str
    number: str = ""
    least: float = 1.0


RMSNORM, ROPE, QK_NORM, RELU2, UNTIED, SOFTCAP, ZERO_INIT, WINDOW, GQA = NAMES = (
    "rmsnorm", "rope", "qk-norm", "relu2", "untied", "softcap", "zero-init", "window", "gqa",
)  # fmt: skip
SWITCHES = (
    Switch(
        RMSNORM,
        "RMSNorm instead of LayerNorm: divides by the root mean square and subtracts no mean; no layer has a bias.",
        "Zhang and Sennrich 2019, arXiv:1910.07467",
    ),
    Switch(
        ROPE,
        "Rotary positions: rotates queries and keys by their position, instead of adding position embeddings.",
        "Su et al. 2021, arXiv:2104.09864",
        "the base θ of the frequencies; 10000",
    ),
    Switch(
        QK_NORM,
        "Applies an RMSNorm to each head's queries and keys, so that attention scores can't grow without bound; with it, "
        "norms have no weights, and the embedding is normalized too.",
        "Henry et al. 2020, arXiv:2010.04245",
    ),
    Switch(RELU2, "ReLU² instead of GELU in the MLP: max(0, x)².", "So et al. 2021, arXiv:2109.08668"),
    Switch(
        UNTIED,
        "The output head has weights of its own, instead of the token embedding's.",
        "Chung et al. 2020, arXiv:2010.12821",
    ),
    Switch(
        SOFTCAP,
        "Soft-caps the logits: c · tanh(logit ÷ c) is never beyond ±c.",
        "Gemma Team 2024, arXiv:2408.00118",
        "c; 15",
        1e-3,
    ),
    Switch(
        ZERO_INIT,
        "The layers that write to the residual stream, and an untied head, start at 0: each block begins as the identity.",
        "Zhang et al. 2019, arXiv:1901.09321",
    ),
    Switch(
        WINDOW,
        "Sliding window: a token attends to the last tokens only, itself included.",
        "Beltagy et al. 2020, arXiv:2004.05150",
        "their number; a quarter of the context",
    ),
    Switch(
        GQA,
        "Grouped-query attention: several query heads share one key and value head.",
        "Ainslie et al. 2023, arXiv:2305.13245",
        "the number of key and value heads; half the heads, or 1",
    ),
)
"""In the order of `NAMES`."""
LEAST = {switch.name: switch.least for switch in SWITCHES}

NAMED = ", ".join(f"{switch.name}[=N]" if switch.number else switch.name for switch in SWITCHES)


class SavedLayout(NamedTuple):
    """A layout that transformers opens: model_type in its config.json, its class, the switches that it always has and
    those that it can have."""

    model_type: str
    title: str
    needs: tuple[str, ...]
    holds: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.needs, *self.holds)


_EVERYWHERE = (RELU2, UNTIED, ZERO_INIT)
LAYOUTS = (
    SavedLayout("gpt2", "GPT2", (), _EVERYWHERE),
    SavedLayout("starcoder2", "Starcoder2", (ROPE,), (*_EVERYWHERE, WINDOW, GQA)),
    SavedLayout("arcee", "Arcee", (RMSNORM, ROPE), (*_EVERYWHERE, GQA)),
    SavedLayout("nanochat", "NanoChat", (RMSNORM, ROPE, QK_NORM), (*_EVERYWHERE, SOFTCAP, GQA)),
)
GPT2, MODERN = "gpt2", "modern"
SETS = {GPT2: "", MODERN: ",".join((RMSNORM, ROPE, QK_NORM, RELU2, UNTIED, SOFTCAP, ZERO_INIT))}
"""Names of whole sets: GPT-2 as it was, and nanochat's set."""

_THETA, _CAP = 10_000.0, 15.0


def parse(text: str) -> dict[str, float | None]:
    """The switches in a comma-separated list, each with its number or None: `rope,rmsnorm,gqa=2`. A set's name stands for
    its switches. Raises `UserError` if there is no such switch, or no layout holds them together."""
    found: dict[str, float | None] = {}
    known = {switch.name: switch for switch in SWITCHES}
    for piece in (piece.strip() for piece in listed(text).split(",")):
        if not piece:
            continue
        name, given, number = piece.partition("=")
        name = name.strip().lower()
        if name in SETS:
            raise UserError(f"{name} is a whole set of switches; give it alone, or list the switches: {SETS[MODERN]}")
        if name not in known:
            raise UserError(no_such("architecture switch", name[:40], known, "; a newer tui-llm may have others"))
        if name in found:
            raise UserError(f"the switch {name} stands twice; give it once")
        if given and not known[name].number:
            raise UserError(f"the switch {name} has no number; give {name} alone")
        found[name] = _number(known[name], number) if given else None
    layout_of(found)
    return found


def listed(text: str) -> str:
    """The switches as a list: a set's name stands for its switches."""
    return SETS.get(text.strip().lower(), text)


def _number(switch: Switch, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    whole = switch.name in (WINDOW, GQA)
    if not switch.least <= value < 1e9 or (whole and value != int(value)):
        raise UserError(
            f"{switch.name}={text[:20]}: give a {'whole ' * whole}number from {switch.least:g} to below 1e9"
        )
    return value


def layout_of(names: Collection[str]) -> SavedLayout:
    """The layout that holds exactly these switches. Raises `UserError`, which names what is missing or contradicts."""
    wanted = set(names)
    holding = [layout for layout in LAYOUTS if wanted <= set(layout.all)]
    if not holding:
        raise UserError(_contradiction(wanted))
    best = min(holding, key=lambda layout: len(set(layout.needs) - wanted))
    missing = [name for name in best.needs if name not in wanted]
    if not missing:
        return best
    usable = [layout for layout in LAYOUTS if set(layout.needs) <= wanted][-1]
    reason = next(name for name in NAMES if name in wanted and name not in usable.all)
    raise UserError(
        f"{reason} is saved as {best.title}, which also needs {', '.join(missing)}: add {'it' if len(missing) == 1 else 'them'}"
    )


def _contradiction(wanted: set[str]) -> str:
    """Two of the switches that no layout holds together."""
    holders = {name: {layout.title for layout in LAYOUTS if name in layout.all} for name in NAMES if name in wanted}
    for first in holders:
        for second in holders:
            if not holders[first] & holders[second]:
                where = [" or ".join(sorted(holders[name])) for name in (first, second)]
                return f"{first} is saved as {where[0]}, {second} as {where[1]}: no layout holds both; leave one out"
    return f"no layout of transformers holds {', '.join(holders)} together; leave one out"


def applied(config: GPTConfig, text: str) -> GPTConfig:
    """`config`, GPT-2's, with the switches in `text`. Raises `UserError` if they contradict each other or the shape."""
    found = parse(text)
    if ROPE in found and config.size % 2:
        raise UserError(
            f"rope turns pairs of numbers: heads of width {config.size} can't be; give an even width ÷ heads"
        )
    made = dataclasses.replace(
        config,
        rmsnorm=RMSNORM in found,
        rope=(found[ROPE] or _THETA) if ROPE in found else 0.0,
        qk_norm=QK_NORM in found,
        relu2=RELU2 in found,
        tied=UNTIED not in found,
        softcap=(found[SOFTCAP] or _CAP) if SOFTCAP in found else 0.0,
    )
    return dataclasses.replace(made, window=_window(config, found), kv_heads=_kv_heads(config, found))


def _window(config: GPTConfig, found: Mapping[str, float | None]) -> int:
    if WINDOW not in found:
        return 0
    count = int(found[WINDOW] or max(1, config.context // 4))
    if count > config.context:
        raise UserError(
            f"window={count} is more than the context of {config.context} tokens; give fewer, or leave it out"
        )
    if count == config.context:
        raise UserError(f"window={count} is the whole context and cuts nothing; give fewer, or leave it out")
    return count


def _kv_heads(config: GPTConfig, found: Mapping[str, float | None]) -> int:
    if GQA not in found:
        return 0
    count = int(found[GQA] or (config.heads // 2 if config.heads % 2 == 0 else 1))
    if config.heads % count:
        raise UserError(f"gqa={count}: {config.heads} heads can't share {count} key and value heads evenly")
    if count == config.heads:
        raise UserError(
            f"gqa={count}: each of the {count} heads has keys and values of its own already; give fewer, or leave it out"
        )
    return count


def zeroed(text: str) -> bool:
    """Whether the layers that write to the residual stream start at 0."""
    return ZERO_INIT in parse(text)


def problem(text: str, config: GPTConfig | None) -> str:
    """Why these switches can't be, for a model of this shape; empty if they can."""
    try:
        parse(text) if config is None else applied(config, text)
    except UserError as error:
        return str(error)
    return ""


def names_of(config: GPTConfig) -> tuple[str, ...]:
    """The switches that a model has. How it was initialized is not known."""
    on = {
        RMSNORM: config.rmsnorm,
        ROPE: bool(config.rope),
        QK_NORM: config.qk_norm,
        RELU2: config.relu2,
        UNTIED: not config.tied,
        SOFTCAP: bool(config.softcap),
        WINDOW: bool(config.window),
        GQA: config.key_heads != config.heads,
    }
    return tuple(name for name in NAMES if on.get(name))


def lines() -> tuple[str, ...]:
    """Each switch in a line: name, sentence, source, number, and what its layouts need; for help and docs."""
    return tuple(
        f"{switch.name}: {switch.sentence} {switch.source}."
        + (f" {switch.name}=N: {switch.number}." if switch.number else "")
        + f" {needs(switch.name)}"
        for switch in SWITCHES
    )


def needs(name: str) -> str:
    """The layouts that hold a switch, and what they need beside it. Example: `Saved as Arcee or NanoChat, with rope.`"""
    holding = [layout for layout in LAYOUTS if name in layout.all]
    if len(holding) == len(LAYOUTS):
        return "Saved in any layout."
    common = set.intersection(*(set(layout.needs) for layout in holding)) - {name}
    beside = [one for one in NAMES if one in common]
    return f"Saved as {' or '.join(layout.title for layout in holding)}" + (
        f", with {', '.join(beside)}." if beside else "."
    )
