"""A message of a conversation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """role: user or assistant, as chat templates name them. `text` is foreign."""

    role: str
    text: str
