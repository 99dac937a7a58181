"""Pinned prompts: what a person wants to see a run learn. No torch here.

One small JSON of this layout holds the user's own pins (in the data folder), and each run has one that its worker reads
anew at every evaluation: `{"version": 1, "pins": [{"prompt": …, "target": …}, …]}`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.llm.tokens.text import clean
from tui_llm.training.run.run import Run

MOST = 16  # pins of one run: each costs a forward pass or two at every evaluation
LONGEST = 2000  # characters of a prompt or a target: each line of the log repeats them
MOST_BYTES = 1 << 20  # of a file of pins
ARROW = "=>"


@dataclass(frozen=True, slots=True)
class Pin:
    """A prompt, and the text that should come next, if one is wished for. Raw text: no special tokens in it."""

    prompt: str
    target: str | None = None


def check(pin: Pin) -> Pin:
    """`pin` as it can be kept: no lone surrogates, an empty target is none. Raises `UserError` where it is no use."""
    pin = Pin(clean(pin.prompt), clean(pin.target) if pin.target else None)
    if not pin.prompt:
        raise UserError("a pin needs a prompt: give some text for the model to go on from")
    for what, text in (("prompt", pin.prompt), ("target", pin.target or "")):
        if len(text) > LONGEST:
            raise UserError(f"the {what} has {len(text):,} characters; a pin's can have {LONGEST:,}")
    return pin


def parse(words: str) -> Pin:
    """`PROMPT` or `PROMPT=>TARGET` (split at the last `=>`). Raises `UserError` as `check` does."""
    prompt, arrow, target = words.rpartition(ARROW)
    return check(Pin(prompt, target) if arrow else Pin(words))


def read(path: Path) -> list[Pin]:
    """The pins in a file, none where there is no file. Raises `UserError` where it is damaged."""
    if not os.path.lexists(path):
        return []
    value = read_json(path, MOST_BYTES)
    try:
        return list(dict.fromkeys(map(_pin, value["pins"])))[:MOST]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no list of pins ({error!r}); delete it, then pin again") from error


def _pin(value: Any) -> Pin:
    prompt, target = value["prompt"], value.get("target")
    if not isinstance(prompt, str) or not isinstance(target, str | None):
        raise TypeError("prompt and target are texts")
    return Pin(prompt, target or None)


def write(path: Path, pins: Iterable[Pin]) -> None:
    """Raises `UserError` where there are too many of them or the file can't be written."""
    pins = list(dict.fromkeys(pins))
    if len(pins) > MOST:
        raise UserError(f"{MOST} prompts can be pinned; unpin one first")
    values = [{"prompt": pin.prompt} | ({"target": pin.target} if pin.target else {}) for pin in pins]
    write_json(path, {"version": 1, "pins": values})


def of_user() -> list[Pin]:
    """The user's own, which new runs get. Raises `UserError` as `read` does."""
    return read(paths.pins_path())


def of_run(run: Run) -> list[Pin]:
    """What the worker reads: where nothing is pinned, the prompt of its samples. Raises `UserError` as `read` does."""
    return read(run.pins_path) or [Pin(run.config().settings.sample_prompt)]


def change(path: Path, pin: Sequence[Pin] = (), unpin: Sequence[Pin] = ()) -> list[Pin]:
    """Takes `unpin` off the file's pins and puts `pin` at their end; returns them. Unchanged pins are not written."""
    before = read(path)
    after = [*(old for old in before if old not in unpin), *(new for new in pin if new not in before)]
    if after != before:
        write(path, after)
    return after


def meant(words: str, pins: Sequence[Pin]) -> list[Pin]:
    """Which of `pins` a person means by `PROMPT=>TARGET`, or by a prompt alone. Raises `UserError` where it is none."""
    exact = [pin for pin in pins if pin == parse(words)]
    found = exact or [pin for pin in pins if pin.prompt == words]
    if not found:
        raise UserError(f"{words!r} is not pinned; pinned are: {', '.join(map(said, pins)) or 'none'}")
    return found


def said(pin: Pin) -> str:
    """As a person would type it: raw text."""
    return f"{pin.prompt}{ARROW}{pin.target}" if pin.target else pin.prompt


def toggle(pin: Pin, run: Run | None = None) -> bool:
    """Pins for the user and for `run`; where it is pinned for one of them, takes it off both. Returns whether it is pinned
    now. Raises `UserError` where the pin is no use, or a file can't be read or written."""
    pin = check(pin)
    places = [paths.pins_path(), *([run.pins_path] if run is not None else [])]
    pinned = any(pin in read(place) for place in places)
    for place in places:
        change(place, *(((), (pin,)) if pinned else ((pin,), ())))
    return not pinned
