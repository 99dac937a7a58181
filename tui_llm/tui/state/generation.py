"""A running generation, and its speed."""

from __future__ import annotations

import threading
import time
from collections import deque

from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.request import Request

SPEED_TOKENS = 32  # the shown speed is the mean over so many last tokens


class Generation:
    """A running generation. Only the engine's thread changes it, except `stop`."""

    def __init__(self, number: int, request: Request, seed: int, count: int) -> None:
        self.number = number
        self.request = request
        self.seed = seed
        self.left = count
        self.stop = threading.Event()
        self.pending: list[GeneratedToken] = []
        self.shown_at = 0.0
        self._times: deque[float] = deque(maxlen=SPEED_TOKENS + 1)  # when each of the last tokens was ready

    def begin(self) -> None:
        """Starts timing, before the first token."""
        if not self._times:
            self._times.append(time.perf_counter())

    def took(self, tokens: list[GeneratedToken]) -> None:
        self.pending += tokens
        self._times += [time.perf_counter()] * len(tokens)

    @property
    def speed(self) -> float | None:
        """Tokens per second over the last `SPEED_TOKENS`, including the readings shown in between; None before the
        first token."""
        seconds = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        return (len(self._times) - 1) / seconds if seconds > 0 else None

    @property
    def index(self) -> int:
        return len(self.request.continuation)
