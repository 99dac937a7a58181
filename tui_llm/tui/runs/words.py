"""How every screen writes a run's state, a duration and a pin."""

from __future__ import annotations

import math

from tui_llm.common.display import truncate, visible
from tui_llm.training.run import pins
from tui_llm.training.run.pins import Pin

STATES = {
    "new": ("○", "not started"),
    "starting": ("◌", "starting"),
    "running": ("●", "running"),
    "paused": ("‖", "paused"),
    "finished": ("✓", "finished"),
    "stopped": ("■", "stopped"),
    "failed": ("✗", "failed"),
    "died": ("✗", "died"),
    "newer": ("?", "newer"),
}

COLOURS = {
    "running": "$text-success",
    "finished": "$text-success",
    "failed": "$text-error",
    "died": "$text-error",
}


def state_words(state: str) -> tuple[str, str]:
    """A run's state as a sign with a word, and its style."""
    sign, word = STATES.get(state, ("?", visible(state)))
    return f"{sign} {word}", COLOURS.get(state, "$text-warning")


def duration(seconds: float) -> str:
    """A duration in seconds as text: 0:42, 1:05:09, 3 d 4 h."""
    if not math.isfinite(seconds) or seconds > 1e9:
        return "∞"
    whole = round(seconds)
    if whole >= 2 * 86400:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def pinned_words(pin: Pin, pinned: bool, run: str) -> str:
    """The notification after a pin was added or removed: foreign text."""
    name = truncate(visible(pins.text_of(pin)), 60)
    if not pinned:
        return f"unpinned: {name}"
    return f"pinned: {name}; " + (f"{run} reads it from its next evaluation on" if run else "the next run reads it")
