"""Checks the messages that a browser sends on its websocket. textual-serve trusts them: a malformed one ends the tab's app with a
traceback, and a screen of a billion columns fills the memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType

WIDEST, HIGHEST = 1000, 500  # cells
DEFAULT = 80, 24


@dataclass(frozen=True, slots=True)
class Checked:
    """The part of aiohttp's message that textual-serve uses."""

    value: list[Any]
    type: WSMsgType = WSMsgType.TEXT

    def json(self) -> list[Any]:
        return self.value


def size(width: object, height: object) -> tuple[int, int]:
    """A screen's size within its limits. Raises `ValueError` where it is not two numbers."""
    if not isinstance(width, int) or not isinstance(height, int):
        raise ValueError
    return min(max(width, 1), WIDEST), min(max(height, 1), HIGHEST)


def checked(text: str) -> Checked | None:
    """The message; None where our page would not send it."""
    try:
        kind, *values = json.loads(text)
        if kind == "stdin":
            (typed,) = values
            # An empty text would end the app's input; half a surrogate pair is no character.
            return Checked([kind, typed.encode("utf-8", "replace").decode()]) if typed else None
        if kind == "resize":
            width, height = size(values[0]["width"], values[0]["height"])
            return Checked([kind, {"width": width, "height": height}])
        if (kind == "ping" and values) or kind in ("blur", "focus"):
            return Checked([kind, *values])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        pass
    return None


class CheckedSocket:
    """A websocket that yields well-formed messages only."""

    def __init__(self, socket: Any) -> None:
        self._socket: AsyncIterable[Any] = socket
        self.send_json = socket.send_json

    async def __aiter__(self) -> AsyncIterator[Checked]:
        async for message in self._socket:
            if message.type == WSMsgType.TEXT and (understood := checked(message.data)) is not None:
                yield understood
