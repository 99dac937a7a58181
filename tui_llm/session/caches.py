"""Small helpers of the open model: bounded caches, and positions in a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tui_llm.facts.request import Request


def place_of(request: Request, ids: Sequence[int]) -> int:
    """How many of `ids` precede the prediction that the request reads."""
    return len(ids) if request.position is None else max(0, min(request.position, len(ids)))


def keep(known: dict[Any, Any], key: Any, value: Any, most: int = 4) -> None:
    """Add to a cache, which holds at most `most` entries, removing the oldest ones."""
    while len(known) >= most:
        known.pop(next(iter(known)))
    known[key] = value
