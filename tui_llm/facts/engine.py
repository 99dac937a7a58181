"""The engine's interface, a Protocol that the screen depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from tui_llm.facts.model import ModelInfo, Weights
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Answer, Question, Request


class Engine(Protocol):
    """The engine. Call it from one thread only. Every method may take long and may raise `UserError`."""

    def open(self, model: str) -> Weights:
        """Open a shipped model, a run or a folder, by name or path. On failure the model that was open stays open."""
        ...

    def read(self, request: Request, overtaken: Callable[[], bool] = ...) -> Reading:
        """Compute the reading of one request. Raises `Overtaken` as soon as `overtaken()` returns true."""
        ...

    def generate(
        self, request: Request, *, seed: int, start: int, count: int, stop: Callable[[], bool] = ...
    ) -> Iterator[GeneratedToken]:
        """Sample up to `count` tokens after the request's prompt and continuation. Token number `start + i` depends on
        (seed, start + i) only, so sampling one token at a time gives the same text as sampling all at once."""
        ...

    def answer(self, question: Question[Answer], overtaken: Callable[[], bool] = ...) -> Answer:
        """Answer an instrument's question (see `instruments/NAME/question.py`). Raises `Overtaken` as `read` does."""
        ...

    def refresh(self) -> Weights | None:
        """If the open model is a run with a newer checkpoint, open that and return its weights; otherwise return
        None."""
        ...

    def prepare(self) -> None:
        """Import what `use_torch` needs: seconds, the first time. The one method for any thread."""
        ...

    def use_torch(self) -> Weights | None:
        """If the open model runs in numpy, run it in torch from here on and return its weights; otherwise return
        None."""
        ...

    def release(self) -> None:
        """Free what instruments cached for their screens: all of these have closed."""
        ...

    def models(self) -> Sequence[ModelInfo]: ...
