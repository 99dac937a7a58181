"""Text and settings in, a `Reading` out: the one place where the numbers on the screen are made.

It owns the model and its KV cache, and one thread asks it. Appending text feeds only the new ids; changing the
temperature, a cut or the target re-reads logits that are there already; new weights empty everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tui_llm import instruments, listing
from tui_llm.errors import Overtaken, UserError
from tui_llm.llm import device, distribution, hub, loss, named, opened, tokenizer
from tui_llm.llm.generate import Step, generate
from tui_llm.llm.model import GPT
from tui_llm.llm.token_bytes import TextStream, token_text
from tui_llm.llm.units import uniform_loss
from tui_llm.llm.weight_names import check_weights
from tui_llm.llm.window import Window
from tui_llm.prediction import candidates, distribution_reading, loss_reading
from tui_llm.reading import (
    GeneratedToken,
    LossReading,
    ModelInfo,
    Question,
    Reading,
    Request,
    Target,
    Token,
    Tokenization,
    TokenScore,
    Weights,
)
from tui_llm.tokenization import bytes_of, span, token_of, tokenization

_STEP_CANDIDATES = 12  # candidates kept with each generated token
FIRST = "nothing predicts the first token: put <|endoftext|> in front (o), or move on"
NOT_FED = "only the last {} tokens were fed, the model's context: nothing predicts the first of them, nor any before it"
NOTHING = "there is nothing to predict from yet: type some text, or put <|endoftext|> in front"
NOT_OURS = (
    "{} is of the kind {!r} and runs through transformers, whose kernels show nothing of what is inside: its attention and "
    "lens can't be shown here, and it can't be trained; a model of GPT-2's layout, such as nano, can"
)
NO_TEMPLATE = "{} has no chat template, it is a base model: feed it the plain text (J)"


def never() -> bool:
    return False


@dataclass
class _Open:
    """An open model and all that is remembered for it."""

    found: hub.Found
    model: opened.Opened
    window: Window
    remembered: dict[str, Any] = field(default_factory=dict)  # the instruments' own
    tokens: dict[Any, Tokenization] = field(default_factory=dict)  # the last text's: most readings are of the same one
    sorted: dict[Any, distribution.Sorted] = field(default_factory=dict)
    processed: dict[Any, distribution.Processed] = field(default_factory=dict)


def _position(request: Request, ids: Sequence[int]) -> int:
    """How many of `ids` stand before the prediction that is asked for."""
    return len(ids) if request.position is None else max(0, min(request.position, len(ids)))


def _keep(known: dict[Any, Any], key: Any, value: Any, most: int = 4) -> None:
    while len(known) >= most:
        known.pop(next(iter(known)))
    known[key] = value


class PipelineEngine:
    """Implements `reading.Engine` on model folders and files. `forwards` counts forward passes, `forward_tokens` the tokens
    that were run in them to read a text."""

    def __init__(self, device_name: str = "auto", weights: str = "fp32") -> None:
        """`weights`: one of `weight_names.WEIGHTS`. Raises `UserError`."""
        self.device, self.kept_as = device.choose(device_name), check_weights(weights)
        self.forwards = self.forward_tokens = 0
        self._open: _Open | None = None
        self._encoded: tuple[tuple[str, bool, bool], list[int]] | None = None
        self._targets: dict[tuple[tuple[int, ...], tuple[int, ...]], list[loss.TokenLoss]] = {}

    # ── models ──

    def open(self, model: str) -> Weights:
        """Opens a shipped model, a run's newest checkpoint or a folder. Raises `UserError`; the old one then stays."""
        found = hub.find(model)
        made = opened.open_model(found.folder, found.name, self.device, self.kept_as)
        self._open = _Open(found, made, Window(made.predictor, made.tokenizer.size))
        self._encoded = None
        self._targets.clear()
        return self.weights()

    def refresh(self) -> Weights | None:
        """Opens the newer checkpoint of the open run, if there is one."""
        found = self._current().found
        if found.kind != "run":
            return None
        run = str(found.folder.parent)
        try:
            newest = hub.find(run)
        except UserError:
            return None  # none is left that is whole: what stands open is
        return None if newest.step == found.step else self.open(run)

    def weights(self) -> Weights:
        open, predictor = self._current(), self._current().model.predictor
        vocabulary = open.model.tokenizer
        start = vocabulary.start
        return Weights(
            open.found.name,
            open.found.step,
            predictor.parameters,
            predictor.layers,
            predictor.heads,
            predictor.width,
            predictor.context,
            vocabulary.size,
            str(self.device),
            open.model.kind,
            "" if start is None else token_text(bytes_of(vocabulary, start)),
            vocabulary.starts,
            open.model.chat is not None,
            open.found.note,
            self.kept_as,
        )

    def models(self) -> Sequence[ModelInfo]:
        """What can be opened by name, broken ones with their problem."""
        return listing.every()

    @property
    def tokenizer(self) -> tokenizer.Tokenizer:
        return self._current().model.tokenizer

    def _current(self) -> _Open:
        if self._open is None:
            raise UserError("no model is open; choose one")
        return self._open

    # ── what the instruments use (`instruments.desk.Desk`) ──

    @property
    def ours(self) -> bool:
        return self._current().model.gpt is not None

    @property
    def model(self) -> GPT:
        open = self._current()
        if open.model.gpt is None:
            raise UserError(NOT_OURS.format(open.found.name, open.model.kind))
        return open.model.gpt

    @property
    def embedding(self) -> Tensor:
        return self._current().model.predictor.embedding()

    @property
    def remembered(self) -> dict[str, Any]:
        return self._current().remembered

    def token(self, id: int) -> Token:
        return token_of(self.tokenizer, id)

    def ids(self, request: Request) -> list[int]:
        return self._encode(request) + list(request.continuation)

    def logits(self, request: Request, overtaken: Callable[[], bool] = never) -> Tensor:
        ids = self.ids(request)
        if not ids:
            raise UserError(NOTHING)
        self._feed(ids, overtaken)
        return self._current().window.logits()

    def prediction(self, request: Request, overtaken: Callable[[], bool] = never) -> distribution.Processed:
        ids = self.ids(request)
        position = _position(request, ids)
        if not ids:
            raise UserError(NOTHING)
        self._feed(ids, overtaken)
        return self._prediction(request, ids, position)

    def target(self, request: Request) -> tuple[list[int], list[int]]:
        ids = self.ids(request)
        position = _position(request, ids)
        return ids[:position], self.target_ids(request.target or Target(), request, ids[position:])

    def target_logits(self, request: Request, overtaken: Callable[[], bool] = never) -> tuple[list[int], Tensor]:
        before, wanted = self.target(request)
        ids, window = self.ids(request), self._current().window
        self._feed(ids, overtaken)
        return wanted, window.target_logits(wanted, self._before(ids, len(before)), overtaken)

    def answer(self, question: Question, overtaken: Callable[[], bool] = never) -> Any:
        return instruments.answer(self, question, overtaken)

    # ── reading ──

    def read(self, request: Request, overtaken: Callable[[], bool] = never) -> Reading:
        """Everything about one moment. Raises `Overtaken` as soon as the answer is no longer wanted."""
        began, open = time.perf_counter(), self._current()
        ids = self.ids(request)
        tokens = self._tokens(request, ids)
        fed = min(len(ids), open.window.context)
        position = _position(request, ids)
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
                before = position - (len(ids) - fed)  # of the tokens in the window, those before the prediction
                lossy = self._loss(request, ids[position:], before, overtaken)
                if position < len(ids):
                    (one,) = self._target_losses([ids[position]], before, overtaken)
                    entropy = open.window.sorted(before).entropy  # the model's own, whatever is changed by hand
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

    def _encode(self, request: Request) -> list[int]:
        """The prompt's ids, in the chat template and with the start token in front where these are asked for."""
        vocabulary = self.tokenizer
        key = (request.prompt, request.allow_special, request.chat)
        if self._encoded is None or self._encoded[0] != key:
            self._encoded = key, self._encode_prompt(request)
        ids = list(self._encoded[1])
        if not request.start_token:
            return ids
        if vocabulary.start is None:
            raise UserError(f"the vocabulary of {vocabulary.name} has no {tokenizer.END_OF_TEXT} to put in front")
        if request.chat and ids[:1] == [vocabulary.start]:  # the template has put it there
            return ids
        return [vocabulary.start, *ids]

    def _encode_prompt(self, request: Request) -> list[int]:
        if not request.chat:
            return self.tokenizer.encode(request.prompt, allow_special=request.allow_special)
        open = self._current()
        if open.model.chat is None:
            raise UserError(NO_TEMPLATE.format(open.found.name))
        return open.model.chat.encode(request.prompt, open.model.tokenizer, request.allow_special)

    def fed_text(self, request: Request) -> str:
        """The prompt's text as the model is given it: in the chat template where that is asked for."""
        open = self._current()
        if not request.chat or open.model.chat is None:
            return request.prompt
        return "".join(open.model.chat.parts(request.prompt))

    def _tokens(self, request: Request, ids: list[int]) -> Tokenization:
        own = self.tokenizer
        if request.tokenizer is None:
            key = tuple(ids), request.token_window, len(request.continuation)
            known = self._current().tokens
            if key not in known:
                _keep(known, key, tokenization(own, ids, request.token_window, len(request.continuation)), most=1)
            return known[key]
        try:
            other = named.load_named(request.tokenizer)
        except UserError as error:
            return Tokenization(request.tokenizer, 0, 0, 0, (), (), 0, str(error))
        typed = other.encode(self.fed_text(request), allow_special=request.allow_special)
        made = other.encode(own.decode(request.continuation)) if request.continuation else []
        return tokenization(other, typed + made, request.token_window, len(made))

    def _feed(self, ids: list[int], overtaken: Callable[[], bool] = never) -> int:
        """Makes the window that of `ids` (of its last `context` ones); says how many tokens were run for it."""
        window = self._current().window
        before = window.forwards
        try:
            run = window.feed(ids[-window.context :], overtaken)
            self.forward_tokens += run
            return run
        finally:
            self.forwards += window.forwards - before

    def _scores(self, ids: list[int], count: int, overtaken: Callable[[], bool]) -> tuple[TokenScore | None, ...]:
        scores = [TokenScore(s.loss.loss, s.loss.probability, s.loss.rank, s.entropy)
                  for s in self._current().window.scores(overtaken)]  # fmt: skip
        unpredicted: list[TokenScore | None] = [None] * (len(ids) - len(scores))
        return tuple((unpredicted + scores)[-count:])

    def _before(self, ids: list[int], position: int) -> int:
        """Of the tokens in the window, which holds the last of `ids`, those before `position`. Raises `UserError` where
        there is none: nothing is predicted there."""
        fed = min(len(ids), self._current().window.context)
        before = position - (len(ids) - fed)
        if before < 1:
            raise UserError(FIRST if fed == len(ids) or position == 0 else NOT_FED.format(fed))
        return before

    def _prediction(self, request: Request, ids: list[int], position: int) -> distribution.Processed:
        """What comes after the first `position` of `ids`, which have been fed. The last few are kept: who asks for the
        table's rows asks many times."""
        open, before = self._current(), self._before(ids, position)
        sampler, penalty = request.sampler, request.sampler.repetition_penalty
        seen = tuple(ids[:position]) if penalty != 1 else tuple(open.window.ids[:before])
        key = (seen, penalty, request.overrides)
        if (logits := open.sorted.get(key)) is None:
            if penalty == 1 and not request.overrides:
                logits = open.window.sorted(before)
            else:
                logits = distribution.Sorted.of(
                    distribution.change(open.window.logits(before), request.overrides),
                    "the logits",
                    "leave at least one token possible",
                    seen=seen,
                    penalty=penalty,
                )
            _keep(open.sorted, key, logits)
        if (processed := open.processed.get((key, sampler))) is None:
            processed = logits.process(sampler)
            _keep(open.processed, (key, sampler), processed)
        return processed

    # ── loss ──

    def target_ids(self, target: Target, request: Request, following: Sequence[int] = ()) -> list[int]:
        """Raises `UserError` where the target is empty or no token of the vocabulary, or nothing follows."""
        if target.own:
            if not following:
                raise UserError(
                    "the text ends here, so it has no next token: move the token cursor back, or choose a target"
                )
            return [following[0]]
        if target.id is not None:
            if not 0 <= target.id < self.tokenizer.size:
                raise UserError(f"there is no token {target.id}; ids go from 0 to {self.tokenizer.size - 1}")
            return [target.id]
        ids = self.tokenizer.encode_after(target.text or "", allow_special=request.allow_special)
        if not ids:
            raise UserError("the target is empty; give some text, such as ' mat'")
        return ids

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
            if request.overrides:  # the first token's prediction is the changed one
                changed = distribution.change(self._current().window.logits(position), request.overrides)
                losses = [*loss.token_losses(changed[None], wanted[:1]), *losses[1:]]
        except UserError as error:
            return LossReading(target.text or "", (), 0.0, 0.0, 0.0, 1.0, uniform, str(error))
        return loss_reading(target.text, losses, self.tokenizer.size, lambda id: bytes_of(self.tokenizer, id))

    def _target_losses(self, wanted: list[int], position: int, overtaken: Callable[[], bool]) -> list[loss.TokenLoss]:
        """Teacher forcing, remembered."""
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
        """Draws up to `count` tokens after the request's prompt and continuation; ends after `<|endoftext|>`.

        Token number `start + i` is fixed by the seed and its number alone. `stop` ends it within a token, the reading of a
        long prompt included. Raises `UserError` on an empty prompt.
        """
        ids = self.ids(request)
        if not ids:
            raise UserError(NOTHING)
        stream = TextStream()
        stream.feed(b"".join(bytes_of(self.tokenizer, id) for id in request.continuation))

        def next_logits(sofar: list[int]) -> Tensor:
            self._feed(sofar, stop)
            logits = self._current().window.logits()
            # A what-if is of the one prediction that the request reads.
            return distribution.change(logits, request.overrides) if len(sofar) == len(ids) else logits

        steps = generate(next_logits, ids, request.sampler, seed=seed, start=start, count=count, stop=stop)
        while True:
            try:
                with device.threads(self.tokenizer.size):
                    step = next(steps, None)
            except Overtaken:  # stopped in the midst of a token
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
