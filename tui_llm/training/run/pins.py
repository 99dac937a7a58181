"""Pinned prompts: prompts whose predictions are recorded at each evaluation of a run. Does not import torch.

The user's own pins are a JSON file in the data folder. Each run has such a file too; its worker reads it at every
evaluation. The format is `{"version": 1, "pins": [{"prompt": …, "target": …}, …]}`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.files import locked, write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.facts.pin import Pin
from tui_llm.llm.tokens.text import clean
from tui_llm.training.run.run import Run

MOST = 16  # pins of one run: each costs a forward pass or two at every evaluation
LONGEST = 2000  # characters of a prompt or a target: every line of probes.jsonl contains them
MOST_BYTES = 1 << 20  # of a pins file
ARROW = "=>"


def check(pin: Pin) -> Pin:
    """Returns `pin` in the form in which it is stored: no lone surrogates, an empty target becomes None.

    Raises `UserError` if the prompt is empty or a text is longer than `LONGEST`.
    """
    pin = Pin(clean(pin.prompt), clean(pin.target) if pin.target else None)
    if not pin.prompt:
        raise UserError("a pin needs a prompt: give some text for the model to continue")
    for what, text in (("prompt", pin.prompt), ("target", pin.target or "")):
        if len(text) > LONGEST:
            raise UserError(f"the {what} has {len(text):,} characters; a pin's can have {LONGEST:,}")
    return pin


def parse(text: str) -> Pin:
    """Parses `PROMPT` or `PROMPT=>TARGET` (split at the last `=>`). Raises `UserError` as `check` does."""
    prompt, arrow, target = text.rpartition(ARROW)
    return check(Pin(prompt, target) if arrow else Pin(text))


def read(path: Path) -> list[Pin]:
    """Returns the pins in a file; an empty list if it does not exist. Raises `UserError` if it is damaged."""
    if not os.path.lexists(path):
        return []
    value = read_json(path, MOST_BYTES)
    try:
        return list(dict.fromkeys(map(_pin, value["pins"])))[:MOST]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a list of pins ({error!r}); delete it, then pin again") from error


def _pin(value: Any) -> Pin:
    prompt, target = value["prompt"], value.get("target")
    if not isinstance(prompt, str) or not isinstance(target, str | None):
        raise TypeError("prompt and target are texts")
    return Pin(prompt, target or None)


def write(path: Path, pins: Iterable[Pin]) -> None:
    """Writes `pins` without duplicates.

    Raises `UserError` if there are more than `MOST` or the file can't be written.
    """
    pins = list(dict.fromkeys(pins))
    if len(pins) > MOST:
        raise UserError(f"{MOST} prompts can be pinned; unpin one first")
    values = [{"prompt": pin.prompt} | ({"target": pin.target} if pin.target else {}) for pin in pins]
    write_json(path, {"version": 1, "pins": values})


def of_user() -> list[Pin]:
    """Returns the user's own pins, which new runs get. Raises `UserError` as `read` does."""
    return read(paths.pins_path())


def of_run(run: Run) -> list[Pin]:
    """Returns the pins that the run's worker reads: without any, the prompt of its samples.

    Raises `UserError` as `read` does.
    """
    return read(run.pins_path) or [Pin(run.config().settings.sample_prompt)]


def change(path: Path, pin: Sequence[Pin] = (), unpin: Sequence[Pin] = ()) -> list[Pin]:
    """Removes `unpin` from the file's pins, appends `pin`, and returns the result.

    Writes the file only if that changes it.
    """
    with locked(path):
        before = read(path)
        after = [*(old for old in before if old not in unpin), *(new for new in pin if new not in before)]
        if after != before:
            write(path, after)
    return after


def matching(text: str, pins: Sequence[Pin]) -> list[Pin]:
    """Returns the pins that `text` means: as `parse` reads it, or else as `text_of` writes them (a target that contains `=>`
    can't be parsed), or else all with the prompt `text`.

    Raises `UserError` if none match.
    """
    try:
        parsed = parse(text)
    except UserError:
        parsed = None
    for found in (
        [pin for pin in pins if pin == parsed],
        [pin for pin in pins if text_of(pin) == text],
        [pin for pin in pins if pin.prompt == text],
    ):
        if found:
            return found
    raise UserError(f"{text!r} is not pinned; pinned are: {', '.join(map(text_of, pins)) or 'none'}")


def text_of(pin: Pin) -> str:
    """Returns the pin in the syntax of `parse`. The text is not sanitized for a terminal."""
    return f"{pin.prompt}{ARROW}{pin.target}" if pin.target else pin.prompt


def toggle(pin: Pin, run: Run | None = None) -> bool:
    """Pins a prompt for the user and for `run`; if either has it already, unpins it in both.

    Returns whether it is now pinned.

    Raises `UserError` if the pin is invalid, or if a file can't be read or written.
    """
    pin = check(pin)
    places = [paths.pins_path(), *([run.pins_path] if run is not None else [])]
    pinned = any(pin in read(place) for place in places)
    for place in places:
        change(place, *(((), (pin,)) if pinned else ((pin,), ())))
    return not pinned
