"""What comes back at the next start: prompt, model, target, sampler, vocabulary, theme, pane. Plain data; reads and writes
no file.

`values` is the state as JSON can hold it, key by key; `parse` reads it again. Two apps share one file, and each writes only
the keys that it changed, so each key must make sense beside any value of the others: a target names the text and the model
that it was chosen for.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from dataclasses import dataclass, field
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.facts.request import Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.tui.kit.command import PANES
from tui_llm.tui.kit.widgets.prompt import clean
from tui_llm.tui.state.lab import VOCABULARIES, Lab, where

VERSION = 1
LONGEST = 1_000_000  # characters of a prompt that is remembered
LARGEST_ID = (1 << 31) - 1  # of a remembered target: no vocabulary has more tokens
MODEL_OWN = "model"  # stands for None, the model's own vocabulary: a key that is there was chosen
ANOTHER_TEXT: tuple[object, ...] = (
    "another text",
)  # `Lab.target_at` of a target left over from a text that is not remembered


@dataclass(frozen=True, slots=True)
class SavedState:
    """None stands for what nobody chose: the app's default.

    target_for: `digest` of the text that the target was chosen for; target_model: the model of a target chosen by id.
    """

    prompt: str | None = None
    model: str | None = None
    target: Target | None = None
    target_for: str = ""
    target_model: str = ""
    sampler: SamplerSettings | None = None
    tokenizer: str | None = None
    flags: dict[str, bool] = field(default_factory=dict)  # of FLAGS
    theme: str | None = None
    pane: str | None = None


LAB_FLAGS = ("allow_special", "start_token", "chat")  # fields of `Lab` that are remembered as they are
FLAGS = (*LAB_FLAGS, "zoomed", "bell")  # and whether the pane is zoomed, and whether news of a run ring


@functools.lru_cache(maxsize=4)
def digest(place: tuple[object, ...]) -> str:
    """Identifies a text and a position of it (see `state.lab.where`)."""
    return hashlib.sha256(repr(place).encode("utf-8", "backslashreplace")).hexdigest()[:32]


def first(prompt: str, model: str, theme: str, pane: str) -> SavedState:
    """The state of a first start."""
    made = of_lab(Lab(prompt), "")
    return dataclasses.replace(
        made, model=model, theme=theme, pane=pane, flags={**made.flags, "zoomed": False, "bell": True}
    )


def of_lab(lab: Lab, model: str) -> SavedState:
    """The part of the state that is the lab's; `model` is the one that is open."""
    target, target_model = lab.target, lab.target_model or model
    known = lab.target_at if lab.target_at is not None else where(lab.current_request())
    return SavedState(
        prompt=lab.prompt if len(lab.prompt) <= LONGEST else None,
        target=target,
        target_for=digest(known) if target is not None else "",
        target_model=target_model if target is not None and target.id is not None else "",
        sampler=lab.sampler,
        tokenizer=lab.tokenizer or MODEL_OWN,
        flags={name: getattr(lab, name) for name in LAB_FLAGS},
    )


def restore(saved: SavedState, lab: Lab) -> None:
    """Sets the lab's state, but not its prompt: an option may have given another."""
    lab.sampler = saved.sampler or lab.sampler
    lab.tokenizer = saved.tokenizer if saved.tokenizer in VOCABULARIES else lab.tokenizer
    for name in LAB_FLAGS:
        setattr(lab, name, saved.flags.get(name, getattr(lab, name)))
    if saved.target is not None:
        here = where(lab.current_request())
        lab.target, lab.target_model = saved.target, saved.target_model
        lab.target_at = here if saved.target_for == digest(here) else ANOTHER_TEXT


def values(state: SavedState) -> dict[str, Any]:
    """What the file holds, without the keys that nobody chose; `target` is null where it follows the likeliest token."""
    target = None
    if state.target is not None:
        target = {
            key: value
            for key, value in dataclasses.asdict(state.target).items()
            if value is not None and value is not False
        }
        target |= {"for": state.target_for} | ({"model": state.target_model} if state.target_model else {})
    found = {
        "prompt": state.prompt,
        "model": state.model,
        "sampler": dataclasses.asdict(state.sampler) if state.sampler is not None else None,
        "tokenizer": state.tokenizer,
        "theme": state.theme,
        "pane": state.pane,
        **state.flags,
    }
    return {key: value for key, value in found.items() if value is not None} | {"target": target}


def parse(found: Any) -> SavedState:
    """Raises ValueError if it is not what `values` makes, of this version."""
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ValueError("it is not a state of this version of tui-llm")
    texts = {key: _of_type(found, key, str) for key in ("prompt", "model", "tokenizer", "theme", "pane")}
    prompt, pane = texts.pop("prompt"), texts.pop("pane")
    target = found.get("target") or {}
    if not isinstance(target, dict):
        raise ValueError("target is not a group of values")
    return SavedState(
        prompt=None if prompt is None else clean(prompt[:LONGEST]),
        target=_target(target),
        target_for=_of_type(target, "for", str) or "",
        target_model=_of_type(target, "model", str) or "",
        sampler=_sampler(found.get("sampler")),
        flags={name: found[name] for name in FLAGS if _of_type(found, name, bool) is not None},
        pane=pane if pane in PANES else None,
        **texts,
    )


def _of_type(found: dict[str, Any], key: str, kind: type) -> Any:
    value = found.get(key)
    if value is not None and type(value) is not kind:
        raise ValueError(f"{key} is not a {kind.__name__}")
    return value


def _target(found: dict[str, Any]) -> Target | None:
    text, own, id = _of_type(found, "text", str), _of_type(found, "own", bool), _of_type(found, "id", int)
    if id is not None and not 0 <= id <= LARGEST_ID:
        raise ValueError("the target's id is no token's")
    if own or id is not None:
        return Target(id=None if own else id, own=bool(own))
    return Target(text=clean(text)) if text else None


def _sampler(found: Any) -> SamplerSettings | None:
    if found is None:
        return None
    if not isinstance(found, dict):
        raise ValueError("sampler is not a group of values")
    given: dict[str, Any] = {}
    for setting in dataclasses.fields(SamplerSettings):
        usual: Any = setting.default
        value = found.get(setting.name, usual)
        if isinstance(usual, float) and type(value) is int:
            value = _float(value, setting.name)
        if type(value) is not type(usual):
            raise ValueError(f"{setting.name} is not a number")
        given[setting.name] = value
    try:
        return SamplerSettings(**given)
    except UserError as error:
        raise ValueError(str(error)) from error


def _float(value: int, name: str) -> float:
    """Raises ValueError for an integer too large for a float, which JSON can hold."""
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} is too large") from error
