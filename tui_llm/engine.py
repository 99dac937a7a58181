"""The engine: a Request in, a Reading out. All numbers on the screen are computed here.

It owns the model and its KV cache (`session/open_model.py`) and is called from one thread. Appending text runs only the
new ids; a change of temperature, cuts or target re-uses the logits; loading new weights clears all caches.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.model import ModelInfo
from tui_llm.facts.prediction import GeneratedToken, LossReading, TokenScore
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Question, Request
from tui_llm.facts.tokens import Tokenization
from tui_llm.llm.hub import model_list
from tui_llm.llm.model import device
from tui_llm.llm.predict import distribution, loss
from tui_llm.llm.predict.generate import Step, generate
from tui_llm.llm.predict.units import uniform_loss
from tui_llm.llm.tokens import catalog
from tui_llm.llm.tokens.token_bytes import TextStream
from tui_llm.session.open_model import NOTHING, ModelDesk, keep, never, place_of
from tui_llm.session.prediction import candidates, distribution_reading, loss_reading
from tui_llm.session.tokenization import bytes_of, span, tokenization

_STEP_CANDIDATES = 12  # candidates stored with each generated token


class PipelineEngine(ModelDesk):
    """Implements `facts.engine.Engine` on model folders and files."""

    def models(self) -> Sequence[ModelInfo]:
        """The models that can be opened by name; broken ones have a `problem`."""
        return model_list.every()

    def answer(self, question: Question, overtaken: Callable[[], bool] = never) -> Any:
        """Answer a question with the `answer` function of its instrument. Raises `UserError`, and `Overtaken` as `read`
        does."""
        module = type(question).__module__.removesuffix("question") + "answer"  # instruments/NAME/answer.py
        return importlib.import_module(module).answer(self, question, overtaken)

    # ── reading ──

    def read(self, request: Request, overtaken: Callable[[], bool] = never) -> Reading:
        """Compute everything that the panes show for one request. Raises `Overtaken` as soon as `overtaken()` returns
        true."""
        began, open = time.perf_counter(), self._current()
        ids = self.ids(request)
        tokens = self._tokens(request, ids)
        fed = min(len(ids), open.window.context)
        position = place_of(request, ids)
        run, spread, lossy, problem, followed = 0, None, None, None, None
        scores: tuple[TokenScore | None, ...] = ()
        try:
            if ids:
                run = self._feed(ids, overtaken)
                if request.scores:
                    scores = self._scores(ids, request.token_window, overtaken)
                with device.threads(self.tokenizer.size):
                    spread = distribution_reading(
                        self._prediction(request, ids, position),
                        request.top,
                        lambda id: bytes_of(self.tokenizer, id),
                    )
                before = position - (len(ids) - fed)  # number of tokens in the window before the prediction
                lossy = self._loss(request, ids[position:], before, overtaken)
                if position < len(ids):
                    (one,) = self._target_losses([ids[position]], before, overtaken)
                    entropy = open.window.sorted(before).entropy  # of the model's own logits, without overrides
                    followed = TokenScore(one.loss, one.probability, one.rank, entropy)
            else:
                problem = NOTHING
        except UserError as error:
            problem = str(error)
        return Reading(
            request,
            self.weights(),
            tokens,
            tuple(ids),
            fed,
            spread,
            lossy,
            problem,
            position,
            self.token(ids[position]) if position < len(ids) else None,
            scores,
            (time.perf_counter() - began) * 1000,
            run,
            followed,
            None
            if request.chat
            else span(
                self.tokenizer, ids, position, int(request.start_token), len(request.continuation), request.prompt
            ),
        )

    def _tokens(self, request: Request, ids: list[int]) -> Tokenization:
        own = self.tokenizer
        if request.tokenizer is None:
            key = tuple(ids), request.token_window, len(request.continuation)
            known = self._current().tokens
            if key not in known:
                keep(known, key, tokenization(own, ids, request.token_window, len(request.continuation)), most=1)
            return known[key]
        try:
            other = catalog.load_named(request.tokenizer)
        except UserError as error:
            return Tokenization(request.tokenizer, 0, 0, 0, (), (), 0, str(error))
        typed = other.encode(self.fed_text(request), allow_special=request.allow_special)
        made = other.encode(own.decode(request.continuation)) if request.continuation else []
        return tokenization(other, typed + made, request.token_window, len(made))

    def _scores(self, ids: list[int], count: int, overtaken: Callable[[], bool]) -> tuple[TokenScore | None, ...]:
        scores = [TokenScore(s.loss.loss, s.loss.probability, s.loss.rank, s.entropy)
                  for s in self._current().window.scores(overtaken)]  # fmt: skip
        unpredicted: list[TokenScore | None] = [None] * (len(ids) - len(scores))
        return tuple((unpredicted + scores)[-count:])

    def _loss(
        self, request: Request, following: list[int], position: int, overtaken: Callable[[], bool]
    ) -> LossReading | None:
        target = request.target
        if target is None:
            return None
        uniform = uniform_loss(self.tokenizer.size)
        try:
            wanted = self.target_ids(target, request, following)
            losses = self._target_losses(wanted, position, overtaken)
            if request.overrides:  # overrides apply to the first token's prediction
                changed = distribution.change(self._current().window.logits(position), request.overrides)
                losses = [*loss.token_losses(changed[None], wanted[:1]), *losses[1:]]
        except UserError as error:
            return LossReading(target.text or "", (), 0.0, 0.0, 0.0, 1.0, uniform, str(error))
        return loss_reading(target.text, losses, self.tokenizer.size, lambda id: bytes_of(self.tokenizer, id))

    def _target_losses(self, wanted: list[int], position: int, overtaken: Callable[[], bool]) -> list[loss.TokenLoss]:
        """Teacher-forced losses, cached."""
        window = self._current().window
        key = (tuple(window.ids[:position]), tuple(wanted))
        if key not in self._targets:
            before = window.forwards
            losses = window.target_losses(wanted, position, overtaken)
            self.forwards += window.forwards - before
            while len(self._targets) >= 64:
                self._targets.pop(next(iter(self._targets)))
            self._targets[key] = losses
        return self._targets[key]

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
        ids = self.ids(request)
        if not ids:
            raise UserError(NOTHING)
        stream = TextStream()
        stream.feed(b"".join(bytes_of(self.tokenizer, id) for id in request.continuation))

        def next_logits(sofar: list[int]) -> Tensor:
            self._feed(sofar, stop)
            logits = self._current().window.logits()
            # Overrides apply only to the prediction that the request reads.
            return distribution.change(logits, request.overrides) if len(sofar) == len(ids) else logits

        steps = generate(next_logits, ids, request.sampler, seed=seed, start=start, count=count, stop=stop)
        while True:
            try:
                with device.threads(self.tokenizer.size):
                    step = next(steps, None)
            except Overtaken:  # stopped within a token
                return
            if step is None:
                return
            yield self._generated(step, stream, request, seed, request.overrides if step.index == start else ())
            if stop_at_end and self.tokenizer.ends(step.id):
                return

    def _generated(
        self, step: Step, stream: TextStream, request: Request, seed: int, overrides: tuple[tuple[int, float], ...]
    ) -> GeneratedToken:
        data = bytes_of(self.tokenizer, step.id)
        return GeneratedToken(
            step.index,
            step.id,
            data,
            stream.feed(data),
            step.u,
            step.probability,
            step.raw_probability,
            step.rank,
            candidates(step.processed, _STEP_CANDIDATES, lambda id: bytes_of(self.tokenizer, id)),
            request.sampler,
            seed,
            step.processed.kept_count,
            ends=self.tokenizer.ends(step.id),
            overrides=overrides,
        )
