"""The engine of a soak: each call on its thread waits until the app is idle, so that a seed is reproducible."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

QUANTUM = 60  # number of times that a long answer may check for a newer request before the next event
TOKENS = 3  # streamed tokens between two events


class Gate:
    """Lets the engine's thread make one call at a time, only while the app is idle, or none at all."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._permitted = False
        self._kind: str | None = None  # the kind of call that waits
        self._open = False
        self._left: dict[str, int] = {}
        self.held = 0  # number of events during which answers are held back

    def wait(self, kind: str) -> None:
        """Blocks the engine's thread until its call is permitted."""
        with self._changed:
            if self._open:
                return
            self._kind = kind
            self._changed.wait_for(lambda: self._permitted or self._open)
            self._permitted, self._kind = False, None

    @property
    def blocked(self) -> bool:
        with self._changed:
            return self._kind is not None and not self._permitted and not self._open

    def refill(self) -> None:
        self._left = {"generate": TOKENS, "part": 1}

    def permit(self) -> bool:
        """Lets a waiting call proceed. Returns False if none is waiting or calls are held back."""
        with self._changed:
            if self._kind is None or self._permitted or self.held or self._left.get(self._kind, 1) <= 0:
                return False
            if self._kind in self._left:
                self._left[self._kind] -= 1
            self._permitted = True
            self._changed.notify()
            return True

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify()


class GatedEngine:
    """The engine, with each call waiting at the gate."""

    def __init__(self, engine: Any, gate: Gate) -> None:
        self._engine, self._gate = engine, gate

    def _overtaken(self, overtaken: Callable[[], bool]) -> Callable[[], bool]:
        asked = itertools.count(1)

        def ask() -> bool:
            if next(asked) % QUANTUM == 0:
                self._gate.wait("part")
            return overtaken()

        return ask

    def read(self, request: Any, overtaken: Callable[[], bool] = lambda: False) -> Any:
        self._gate.wait("read")
        return self._engine.read(request, overtaken)

    def answer(self, question: Any, overtaken: Callable[[], bool] = lambda: False) -> Any:
        self._gate.wait("answer")
        return self._engine.answer(question, self._overtaken(overtaken))

    def generate(self, request: Any, **how: Any) -> Iterator[Any]:
        self._gate.wait("generate")
        yield from self._engine.generate(request, **how)

    def open(self, model: str) -> Any:
        self._gate.wait("open")
        return self._engine.open(model)

    def refresh(self) -> Any:
        self._gate.wait("refresh")
        return self._engine.refresh()

    def prepare(self) -> None:
        """Nothing: torch is there, and when it would be imported depends on the clock, which a replay does not repeat."""

    def use_torch(self) -> None:
        return None

    def release(self) -> None:
        self._gate.wait("release")
        self._engine.release()

    def models(self) -> Any:
        self._gate.wait("models")
        return self._engine.models()


def note_rest(loop: asyncio.AbstractEventLoop) -> None:
    """Makes each `EngineClient` say whether its thread has nothing to do (`resting`), and wake the loop when that begins."""
    from tui_llm.tui.state.engine_client import EngineClient

    if hasattr(EngineClient, "_seen_next"):
        return
    EngineClient._seen_next = EngineClient._next  # type: ignore[attr-defined]

    def noted(client: Any) -> Any:
        job = EngineClient._seen_next(client)  # type: ignore[attr-defined]
        client.resting = job is None
        if job is None and not loop.is_closed():
            loop.call_soon_threadsafe(lambda: None)
        return job

    EngineClient._next = noted  # type: ignore[method-assign]
