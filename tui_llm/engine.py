"""Text and settings in, a `Reading` out: the one place where the numbers on the screen are made.

It owns the model and its KV cache, and one thread asks it. Appending text feeds only the new ids; changing the
temperature, a cut or the target re-reads logits that are there already; new weights empty everything.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tui_llm import instruments
from tui_llm.errors import Overtaken, UserError
from tui_llm.llm import checkpoint, device, distribution, hub, loss, named, tokenizer
from tui_llm.llm.generate import Step, generate
from tui_llm.llm.model import GPT, KVCache
from tui_llm.llm.token_bytes import TextStream, token_text
from tui_llm.prediction import candidates, distribution_reading
from tui_llm.reading import (
    Distribution,
    GeneratedToken,
    LossReading,
    ModelInfo,
    Question,
    Reading,
    Request,
    Target,
    TargetToken,
    Token,
    Tokenization,
    Weights,
)
from tui_llm.tokenization import bytes_of, token_of, tokenization

_CHUNK = 256  # tokens fed between two looks at whether the request is still wanted
_STEP_CANDIDATES = 12  # candidates kept with each generated token
NOTHING = "there is nothing to predict from yet: type some text, or put <|endoftext|> in front"


def never() -> bool:
    return False


@dataclass
class _Open:
    """An open model and all that is remembered for it."""

    found: hub.Found
    model: GPT
    tokenizer: tokenizer.BPETokenizer
    cache: KVCache
    fed: list[int]  # the ids whose keys and values the cache holds
    logits: Tensor | None = None  # (V,), after the last of `fed`
    order: distribution.Sorted | None = None  # of `logits`
    remembered: dict[str, Any] = field(default_factory=dict)  # the instruments' own


class PipelineEngine:
    """Implements `reading.Engine` on GPT-2 folders. `forwards` counts forward passes."""

    def __init__(self, device_name: str = "auto") -> None:
        self.device = device.choose(device_name)
        self.forwards = 0
        self._open: _Open | None = None
        self._encoded: tuple[tuple[str, bool, str], list[int]] | None = None
        self._targets: dict[tuple[tuple[int, ...], tuple[int, ...]], list[loss.TokenLoss]] = {}

    # ── models ──

    def open(self, model: str) -> Weights:
        """Opens a shipped model, a run's newest checkpoint or a folder. Raises `UserError`; the old one then stays."""
        found = hub.find(model)
        gpt = checkpoint.load(found.folder, self.device)
        vocabulary = tokenizer.load_folder(found.folder, found.name)
        if vocabulary.size > gpt.config.vocabulary:
            raise UserError(
                f"{found.folder}: its vocabulary has {vocabulary.size} tokens, its model only {gpt.config.vocabulary}; "
                "they are of different models"
            )
        self._open = _Open(found, gpt, vocabulary, KVCache(gpt.config, self.device), [])
        self._encoded = None
        self._targets.clear()
        return self.weights()

    def refresh(self) -> Weights | None:
        """Opens the newer checkpoint of the open run, if there is one."""
        found = self._current().found
        if found.kind != "run":
            return None
        newest = hub.newest_checkpoint(found.folder.parent)
        if newest is None or newest[0] == found.step:
            return None
        return self.open(str(found.folder.parent))

    def weights(self) -> Weights:
        open, config = self._current(), self._current().model.config
        return Weights(
            open.found.name,
            open.found.step,
            config.parameters(),
            config.layers,
            config.heads,
            config.width,
            config.context,
            open.tokenizer.size,
            str(self.device),
        )

    def models(self) -> Sequence[ModelInfo]:
        """What can be opened by name, broken ones with their problem."""
        return [describe(found) for found in hub.every()]

    @property
    def tokenizer(self) -> tokenizer.BPETokenizer:
        return self._current().tokenizer

    def _current(self) -> _Open:
        if self._open is None:
            raise UserError("no model is open; choose one")
        return self._open

    # ── what the instruments use (`instruments.desk.Desk`) ──

    @property
    def model(self) -> GPT:
        return self._current().model

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
        logits = self._current().logits
        assert logits is not None
        return logits

    def answer(self, question: Question, overtaken: Callable[[], bool] = never) -> Any:
        return instruments.answer(self, question, overtaken)

    # ── reading ──

    def read(self, request: Request, overtaken: Callable[[], bool] = never) -> Reading:
        """Everything about one moment. Raises `Overtaken` as soon as the answer is no longer wanted."""
        began, open = time.perf_counter(), self._current()
        ids = self.ids(request)
        tokens = self._tokens(request, ids)
        fed = min(len(ids), open.model.config.context)
        run, spread, lossy, problem = 0, None, None, None
        try:
            if ids:
                run = self._feed(ids, overtaken)
                with device.threads(self.tokenizer.size):
                    spread = self._distribution(request)
                lossy = self._loss(request.target, ids, request, overtaken)
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
            (time.perf_counter() - began) * 1000,
            run,
        )

    def _encode(self, request: Request) -> list[int]:
        """The prompt's ids, the start token in front if it is asked for."""
        vocabulary = self.tokenizer
        key = (request.prompt, request.allow_special, vocabulary.name)
        if self._encoded is None or self._encoded[0] != key:
            self._encoded = key, vocabulary.encode(request.prompt, allow_special=request.allow_special)
        if not request.start_token:
            return list(self._encoded[1])
        if vocabulary.end_of_text is None:
            raise UserError(f"the vocabulary of {vocabulary.name} has no {tokenizer.END_OF_TEXT} to put in front")
        return [vocabulary.end_of_text, *self._encoded[1]]

    def _tokens(self, request: Request, ids: list[int]) -> Tokenization:
        own = self.tokenizer
        if request.tokenizer is None:
            return tokenization(own, ids, request.token_window, len(request.continuation))
        try:
            other = named.load_named(request.tokenizer)
        except UserError as error:
            return Tokenization(request.tokenizer, 0, 0, 0, (), (), 0, str(error))
        typed = other.encode(request.prompt, allow_special=request.allow_special)
        made = other.encode(own.decode(request.continuation)) if request.continuation else []
        return tokenization(other, typed + made, request.token_window, len(made))

    def _feed(self, ids: list[int], overtaken: Callable[[], bool] = never) -> int:
        """Makes `logits` those after the last of `ids` (of its last `context` ones); says how many tokens that took."""
        open = self._current()
        window = ids[-open.model.config.context :]
        same = 0
        for old, new in zip(open.fed, window, strict=False):
            if old != new:
                break
            same += 1
        if same == len(window) == len(open.fed) and open.logits is not None:
            return 0
        same = min(same, len(window) - 1)  # at least one token has to be run to have its logits
        open.cache.crop(same)
        del open.fed[same:]
        open.logits = open.order = None
        for start in range(same, len(window), _CHUNK):
            if overtaken():
                raise Overtaken
            part = window[start : start + _CHUNK]
            open.logits = self._forward(part, 1)[-1]
            open.fed += part
        return len(window) - same

    def _forward(self, ids: Sequence[int], last: int) -> Tensor:
        """Runs `ids` after the cache's; the logits (last, V) on the CPU, without ids that only pad the embedding."""
        open = self._current()
        self.forwards += 1
        with torch.inference_mode(), device.threads(open.model.config.parameters() * len(ids)):
            logits = open.model(torch.tensor([ids], device=self.device), open.cache, last=last)[0]
            return logits[:, : open.tokenizer.size].float().cpu()

    def _sorted(self) -> distribution.Sorted:
        open = self._current()
        assert open.logits is not None
        if open.order is None:
            open.order = distribution.Sorted.of(open.logits)
        return open.order

    def _distribution(self, request: Request) -> Distribution:
        return distribution_reading(
            self._sorted(), request.sampler, request.top, lambda id: bytes_of(self.tokenizer, id)
        )

    # ── loss ──

    def target_ids(self, target: Target, request: Request) -> list[int]:
        """Raises `UserError` where the target is empty or no token of the vocabulary."""
        if target.id is not None:
            if not 0 <= target.id < self.tokenizer.size:
                raise UserError(f"there is no token {target.id}; ids go from 0 to {self.tokenizer.size - 1}")
            return [target.id]
        ids = self.tokenizer.encode(target.text or "", allow_special=request.allow_special)
        if not ids:
            raise UserError("the target is empty; give some text, such as ' mat'")
        return ids

    def _loss(
        self, target: Target | None, ids: list[int], request: Request, overtaken: Callable[[], bool]
    ) -> LossReading | None:
        if target is None:
            return None
        uniform = math.log(self.tokenizer.size)
        try:
            wanted = self.target_ids(target, request)
            losses = self._target_losses(ids, wanted, overtaken)
        except UserError as error:
            return LossReading(target.text or "", (), 0.0, 0.0, 0.0, 1.0, uniform, str(error))
        total = loss.summary(losses, self.tokenizer.size)
        tokens = []
        for one in losses:
            data = bytes_of(self.tokenizer, one.id)
            tokens.append(
                TargetToken(
                    one.id,
                    data,
                    token_text(data),
                    one.rank,
                    one.logit,
                    one.logsumexp,
                    one.probability,
                    one.loss,
                    one.gradient,
                )
            )
        text = target.text if target.text is not None else tokens[0].text
        return LossReading(text, tuple(tokens), total.sum, total.mean, total.bits, total.perplexity, total.uniform_loss)

    def _target_losses(self, ids: list[int], wanted: list[int], overtaken: Callable[[], bool]) -> list[loss.TokenLoss]:
        """Teacher forcing: each target token's loss given the true ones before it. The first needs no forward pass."""
        open = self._current()
        assert open.logits is not None
        key = (tuple(open.fed), tuple(wanted))
        if key in self._targets:
            return self._targets[key]
        rows = [open.logits]
        room = open.model.config.context - len(open.fed)
        if len(wanted) > 1 and room:
            length = len(open.fed)
            rows += self._forward(wanted[: min(room, len(wanted) - 1)], min(room, len(wanted) - 1)).unbind()
            open.cache.crop(length)  # the prompt's cache goes on as if nothing had been tried
        if len(rows) < len(wanted):  # the context is full: the window slides with each further token
            open.fed.clear()
            for count in range(len(rows), len(wanted)):
                if overtaken():
                    open.logits = open.order = None
                    raise Overtaken
                open.cache.crop(0)
                rows.append(self._forward((ids + wanted[:count])[-open.model.config.context :], 1)[-1])
            open.logits = open.order = None
            self._feed(ids)
        with device.threads(self.tokenizer.size * len(wanted)):
            losses = loss.token_losses(torch.stack(rows), torch.tensor(wanted))
        while len(self._targets) >= 64:
            self._targets.pop(next(iter(self._targets)))
        self._targets[key] = losses
        return losses

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

        Token number `start + i` is fixed by the seed and its number alone. Raises `UserError` on an empty prompt.
        """
        ids = self.ids(request)
        if not ids:
            raise UserError(NOTHING)
        stream = TextStream()
        stream.feed(b"".join(bytes_of(self.tokenizer, id) for id in request.continuation))

        def next_logits(sofar: list[int]) -> Tensor:
            self._feed(sofar)
            logits = self._current().logits
            assert logits is not None
            return logits

        steps = generate(next_logits, ids, request.sampler, seed=seed, start=start, count=count, stop=stop)
        while True:
            with device.threads(self.tokenizer.size):
                step = next(steps, None)
            if step is None:
                return
            yield self._generated(step, stream)
            if stop_at_end and step.id == self.tokenizer.end_of_text:
                return

    def _generated(self, step: Step, stream: TextStream) -> GeneratedToken:
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
        )


def describe(found: hub.Found) -> ModelInfo:
    """What can be said of a model without opening its weights."""
    try:
        config = checkpoint.read_config(found.folder)
    except UserError as error:
        return ModelInfo(found.name, found.kind, str(found.folder), None, None, None, found.step, str(error))
    return ModelInfo(
        found.name,
        found.kind,
        str(found.folder),
        config.parameters(),
        config.context,
        config.vocabulary,
        found.step,
    )
