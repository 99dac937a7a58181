"""The engine's interface, as the screen sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from tui_llm.facts.model import ModelInfo, Weights
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Question, Request


class Engine(Protocol):
    """What the screen asks. One thread asks it; every method may take long and may raise `UserError`."""

    def open(self, model: str) -> Weights:
        """Opens a shipped model, a run or a folder by name or path; the old model stays if that fails."""
        ...

    def read(self, request: Request, overtaken: Callable[[], bool] = ...) -> Reading:
        """Raises `Overtaken` as soon as `overtaken()` is true."""
        ...

    def generate(
        self, request: Request, *, seed: int, start: int, count: int, stop: Callable[[], bool] = ...
    ) -> Iterator[GeneratedToken]:
        """Draws up to `count` tokens after the request's prompt and continuation. The draw of token number
        `start + i` is fixed by (seed, start + i) alone, so one at a time equals all at once."""
        ...

    def answer(self, question: Question, overtaken: Callable[[], bool] = ...) -> Any:
        """What the question's instrument answers (see `facts/`). Raises `Overtaken` as `read` does."""
        ...

    def refresh(self) -> Weights | None:
        """If the open model is a run that has a newer checkpoint, opens it and returns its weights; else None."""
        ...

    def models(self) -> Sequence[ModelInfo]: ...
