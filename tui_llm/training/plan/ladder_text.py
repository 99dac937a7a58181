"""The settings and rungs of a ladder, as they are typed. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.training.plan import ladder_rungs
from tui_llm.training.run.settings import SETTINGS


def parse_settings(text: str) -> dict[str, str]:
    """`width=64, arch=rope,gqa=2` → each setting's value. A comma begins a new setting only where the name of one follows.

    Raises `UserError` for a part that is not NAME=VALUE.
    """
    given: dict[str, str] = {}
    last = ""
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name = name.strip().replace("-", "_").replace(" ", "_")
        if equals and (name in SETTINGS or not last):
            last = name
            given[name] = value.strip()
        elif last and part.strip():
            given[last] += f",{part.strip()}"
        elif part.strip():
            raise UserError(f"settings: {part.strip()[:40]!r} is not NAME=VALUE, such as width=64")
    return given


def shared_settings(given: Mapping[str, Any]) -> dict[str, str]:
    """Settings as a ladder's file has them. Raises `UserError` for those that a ladder decides."""
    own = {"steps", "minutes", "eval_every", "checkpoint_every"} & given.keys()
    if own:
        raise UserError(f"a ladder sets {' and '.join(sorted(own))} itself; leave it out")
    return {name: str(value) for name, value in given.items()}


def parse_rungs(text: str) -> tuple[str, ...]:
    """Rungs that are named with commas between them, in the order of `RUNGS`. Raises `UserError` for an unknown one."""
    named: Sequence[str] = [ladder_rungs.find(part.strip()).name for part in text.split(",") if part.strip()]
    return tuple(rung.name for rung in ladder_rungs.RUNGS if rung.name in named)
