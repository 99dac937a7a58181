"""A pinned prompt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pin:
    """A prompt and, optionally, the target text that should follow it. Plain text: special tokens are not parsed.

    A training run records the predictions for its pins at each evaluation; *Learn this* shows how they change.
    """

    prompt: str
    target: str | None = None
