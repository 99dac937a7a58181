"""The engine: a Request in, a Reading out. All numbers on the screen are computed here.

It owns the model and its KV cache (`session/open_model.py`) and is called from one thread. Appending text runs only the
new ids; a change of temperature, cuts or target re-uses the logits; loading new weights clears all caches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.interventions import refusal
from tui_llm.facts.model import ModelInfo
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Answer, Question, Request
from tui_llm.instruments import answers
from tui_llm.llm.predict import distribution
from tui_llm.llm.predict.generate import generate
from tui_llm.session import reading
from tui_llm.session.messages import NOTHING
from tui_llm.session.open_model import OpenModel, never

_STEP_CANDIDATES = 12  # candidates stored with each generated token


class PipelineEngine(OpenModel):
    """Implements `facts.engine.Engine` on model folders and files."""

    def models(self) -> Sequence[ModelInfo]:
        """The models that can be opened by name; broken ones have a `problem`."""
        from tui_llm.llm.hub import model_list  # slow to import, and not needed for a reading

        return model_list.every()

    def prepare(self) -> None:
        """Import what `use_torch` needs. Call it from any thread: Python's import locks make others wait for it."""
        from tui_llm.llm.model.torch_import import import_torch

        import_torch()
        from tui_llm.llm.model import checkpoint, fast_decode  # noqa: F401

    def answer(self, question: Question[Answer], overtaken: Callable[[], bool] = never) -> Answer:
        """Answer an instrument's question. Raises `UserError`, and `Overtaken` as `read` does."""
        if question.uses_parts:
            if question.unchanged_only and question.request.interventions:
                raise UserError(refusal(question.unchanged_only, question.request.interventions))
            self.intervene(question.request.interventions)
        return answers.answer(self, question, overtaken)

    def read(self, request: Request, overtaken: Callable[[], bool] = never) -> Reading:
        """Compute everything that the panes show for one request. Raises `Overtaken` as soon as `overtaken()` returns
        true."""
        return reading.read(self, request, overtaken)

    # ── generation ──

    def generate(
        self,
        request: Request,
        *,
        seed: int,
        start: int = 0,
        count: int = 1,
        stop: Callable[[], bool] = never,
        stop_at_end: bool = True,
    ) -> Iterator[GeneratedToken]:
        """Sample up to `count` tokens after the request's prompt and continuation; with `stop_at_end`, end after an
        end-of-text token.

        Token number `start + i` depends only on the seed and its number. `stop` is checked within a token too, also
        while a long prompt is run. Raises `UserError` on an empty prompt.
        """
        self.intervene(request.interventions)
        ids = self.ids(request)
        if not ids:
            raise UserError(NOTHING)

        def next_logits(sofar: list[int]) -> Any:
            self.intervene(request.interventions)  # another call may have come between two tokens
            self.feed(sofar, stop)
            logits = self.window.logits()
            # Overrides apply only to the prediction that the request reads.
            return distribution.change(logits, request.overrides) if len(sofar) == len(ids) else logits

        steps = generate(
            next_logits,
            ids,
            request.sampler,
            seed=seed,
            start=start,
            count=count,
            stop=stop,
            bytes_of=self.bytes_of,
            bytes_after=self.bytes_after,
            before=b"".join(map(self.bytes_of, request.continuation)),
            candidates=_STEP_CANDIDATES,
            ends=self.tokenizer.ends,
        )
        while True:
            try:
                step = next(steps, None)
            except Overtaken:  # stopped within a token
                return
            if step is None:
                return
            overrides = request.overrides if step.index == start else ()
            if overrides or request.interventions:
                step = dataclasses.replace(step, overrides=overrides, interventions=request.interventions)
            yield step
            if stop_at_end and step.ends:
                return
