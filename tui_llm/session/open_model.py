"""The open model and its caches: text → ids → logits → distribution."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_llm.common.errors import UserError
from tui_llm.facts.interventions import Intervention
from tui_llm.facts.model import Weights
from tui_llm.facts.prediction import TokenLoss
from tui_llm.facts.request import Request, Target
from tui_llm.facts.tokens import Token, Tokenization
from tui_llm.llm.adapters.chat import ChatTemplate
from tui_llm.llm.hub import lookup, open_model
from tui_llm.llm.model.device_names import check_device, is_cpu
from tui_llm.llm.model.tensor_shapes import headers_once
from tui_llm.llm.model.weight_names import check_weights
from tui_llm.llm.predict import distribution
from tui_llm.llm.predict.softmax import Array
from tui_llm.llm.predict.window import Window
from tui_llm.llm.tokens import text as tokens_text
from tui_llm.llm.tokens import tokenizer
from tui_llm.session.caches import keep, place_of
from tui_llm.session.interventions import Changes
from tui_llm.session.messages import FIRST, NO_TEMPLATE, NOT_FED, NOT_OURS, NOTHING
from tui_llm.session.opened import OpenedModel
from tui_llm.session.tokenization import bytes_of, token_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tui_llm.llm.model.model import GPT


def never() -> bool:
    return False


class OpenModel:
    """The open model and its vocabulary, as instruments use it; call it from one thread only.

    Instruments must not modify either; to train, they make a copy. `forwards` counts forward passes, `forward_tokens`
    the tokens run in them to read a text.
    """

    def __init__(self, device_name: str = "auto", weights: str = "fp32", *, numpy_first: bool = False) -> None:
        """`weights`: one of `weight_names.WEIGHTS`. With `numpy_first`, small models run in numpy on a CPU, and quantized
        GGUF files in llama.cpp, without torch, until something needs `gpt`. Raises `UserError` on an unknown device or
        weight format."""
        self._device_name, self.dtype = check_device(device_name), check_weights(weights)
        self._device: torch.device | None = None
        self._numpy_first = numpy_first and weights == "fp32" and is_cpu(device_name)
        if not self._numpy_first:
            _ = self.device  # whether there is one is said before a model is opened
        self.forwards = self.forward_tokens = 0
        self._open: OpenedModel | None = None
        self._changes = Changes[OpenedModel]()
        self._encoded: tuple[tuple[str, bool, bool], list[int]] | None = None
        self._targets: dict[tuple[tuple[int, ...], tuple[int, ...]], list[TokenLoss]] = {}

    @headers_once()
    def open(self, model: str) -> Weights:
        """Open a shipped model, a run's newest checkpoint or a folder. Raises `UserError`; the previous model then
        stays open."""
        found = lookup.find(model)
        made = open_model.open_without_torch(found.folder, found.name) if self._numpy_first else None
        self._install(found, made or open_model.open_model(found.folder, found.name, self.device, self.dtype))
        return self.weights()

    def _install(self, found: lookup.LocalModel, made: open_model.LoadedModel) -> None:
        window = Window(made.predictor, made.tokenizer.size)
        self._changes.forget()
        self._open = OpenedModel(found, made, window, open_model.choices_of(made, found.folder))
        self._encoded = None
        self._targets.clear()

    def intervene(self, interventions: Sequence[Intervention]) -> None:
        """Change the model's parts from here on. Raises `UserError` if it has no such part; it is then unchanged."""
        wanted, now = tuple(interventions), self._open
        if now is None or wanted == self._changes.on:
            return
        self._targets.clear()
        self._open = now = self._changes.undo(now)
        if wanted and (changed := self._changes.restore(now, wanted)) is not None:
            self._open = changed
        elif wanted:
            self.use_torch()
            now = self._current()
            model = dataclasses.replace(now.model, predictor=self._changes.apply(now, now.model, wanted))
            window = Window(model.predictor, model.tokenizer.size)
            self._open = OpenedModel(now.found, model, window, now.choices, tokens=now.tokens)

    def use_torch(self) -> Weights | None:
        """Run models in torch from here on; the open one's weights, if it ran in numpy. Raises `UserError`."""
        before = self._open
        if before is None or before.model.numpy is None:
            self._numpy_first = False
            return None
        self._install(before.found, open_model.in_torch(before.model, self.device))
        self._current().remembered.update(before.remembered)
        self._numpy_first = False  # not before: if memory is too low for torch, numpy goes on
        return self.weights()

    @property
    def device(self) -> torch.device:
        """Imports torch. Raises `UserError` if this machine has no such device."""
        if self._device is None:
            from tui_llm.llm.model import device

            self._device = device.choose(self._device_name)
        return self._device

    def refresh(self) -> Weights | None:
        """Open the run's newer checkpoint, if there is one, and return its weights; else None."""
        found = self._current().found
        if found.kind != "run":
            return None
        run = str(found.folder.parent)
        try:
            newest = lookup.find(run)
        except UserError:
            return None  # no intact checkpoint is left: keep the open one
        return None if newest.step == found.step else self.open(run)

    def weights(self) -> Weights:
        open = self._current()
        return open.weights(str(self.device) if open.model.reader == "torch" else "cpu", self.dtype)

    @property
    def folder(self) -> Path:
        """The open model's folder or file."""
        return self._current().found.folder

    @property
    def tokenizer(self) -> tokenizer.Tokenizer:
        return self._current().model.tokenizer

    def _current(self) -> OpenedModel:
        if self._open is None:
            raise UserError("no model is open; choose one")
        return self._open

    # ── text → ids ──

    def token(self, id: int, previous: int | None = None) -> Token:
        return token_of(self.tokenizer, id, previous)

    def bytes_of(self, id: int, previous: int | None = None) -> bytes:
        return bytes_of(self.tokenizer, id, previous)

    def bytes_after(self, ids: Sequence[int]) -> Callable[[int], bytes]:
        """The bytes that a token adds to the text of `ids`."""
        previous = ids[-1] if ids else None
        return lambda id: self.bytes_of(id, previous)

    def ids(self, request: Request) -> list[int]:
        """All ids before the prediction: start token, prompt, continuation.

        Raises `UserError` for a continuation of another vocabulary: a key can be pressed while another model opens.
        """
        if (most := max(request.continuation, default=0)) >= self.tokenizer.size:
            raise UserError(
                f"the continuation has token {most}, which {self._current().found.name} does not know: it was generated by another "
                "model; clear it (c)"
            )
        ids = self._encode(request) + list(request.continuation)
        self.begins_at(len(ids) - self.window.context)
        return ids

    def _encode(self, request: Request) -> list[int]:
        """The prompt's ids, with chat template and start token if the request asks for them."""
        vocabulary = self.tokenizer
        key = (request.prompt, request.allow_special, request.chat)
        if self._encoded is None or self._encoded[0] != key:
            self._encoded = key, self._encode_prompt(request)
        ids = list(self._encoded[1])
        if not request.start_token:
            return ids
        if vocabulary.start is None:
            raise UserError(f"the vocabulary of {vocabulary.name} has no {tokens_text.END_OF_TEXT} to put in front")
        if request.chat and ids[:1] == [vocabulary.start]:  # the template already includes it
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
        """The prompt as it is fed to the model: with the chat template applied if the request asks for it."""
        open = self._current()
        if not request.chat or open.model.chat is None:
            return request.prompt
        return "".join(open.model.chat.parts(request.prompt))

    def target_ids(
        self,
        target: Target,
        request: Request,
        following: Sequence[int] = (),
        overtaken: Callable[[], bool] = never,
    ) -> list[int]:
        """The ids of the target; `following` are the text's own after the position.

        Raises `UserError` if the target is empty or not in the vocabulary, or if `own` is asked for at the end of the
        text.
        """
        if target.own:
            if not following:
                raise UserError(
                    "the text ends here, so it has no next token: move the token cursor back, or choose a target"
                )
            return [following[0]]
        if target.likeliest:
            return [self._likeliest(request, overtaken)]
        if target.id is not None:
            if not 0 <= target.id < self.tokenizer.size:
                raise UserError(f"there is no token {target.id}; ids go from 0 to {self.tokenizer.size - 1}")
            return [target.id]
        ids = self.tokenizer.encode_after(target.text or "", allow_special=request.allow_special)
        if not ids:
            raise UserError("the target is empty; give some text, such as ' mat'")
        return ids

    # ── the model's internals ──

    @property
    def is_gpt(self) -> bool:
        """Whether the model is our own GPT, so that `gpt` is available."""
        model = self._current().model
        return model.gpt is not None or model.numpy is not None

    @property
    def gpt(self) -> GPT:
        """Our own GPT, in torch. Raises `UserError` if the open model is of another architecture."""
        self.use_torch()
        open = self._current()
        if open.model.gpt is None:
            raise UserError(NOT_OURS.format(open.found.name, open.model.kind, open.model.library))
        return open.model.gpt

    @property
    def chat_template(self) -> ChatTemplate | None:
        return self._current().model.chat

    @property
    def window(self) -> Window:
        """The tokens that were fed last, with their cache."""
        return self._current().window

    @property
    def embedding(self) -> Tensor:
        """The token embedding (V, C) of any model, padding rows included, in torch."""
        self.use_torch()
        return self._current().model.predictor.embedding()

    @property
    def tokenizations(self) -> dict[Any, Tokenization]:
        """The cache of the last text's tokens, which most readings share."""
        return self._current().tokens

    @property
    def screen_cache(self) -> dict[str, Any]:
        """As `remembered`, for what is large and of use only while a screen is open: `release` clears it."""
        return self._current().screen_cache

    def release(self) -> None:
        """Free what the instruments cached for closed screens."""
        for each in filter(None, (self._open, *self._changes.states)):
            each.screen_cache.clear()

    @property
    def remembered(self) -> dict[str, Any]:
        """The instruments' cache between questions; each uses its own key. Cleared when a model is opened."""
        return self._current().remembered

    # ── ids → logits → distribution ──

    def logits(self, request: Request, overtaken: Callable[[], bool] = never) -> Array:
        """The logits (V,) after the request's last token, from the cache if possible; float32, without padding ids.
        Raises `UserError` if there is no token."""
        ids = self.ids(request)
        if not ids:
            raise UserError(NOTHING)
        self.feed(ids, overtaken)
        return self.window.logits()

    def prediction(self, request: Request, overtaken: Callable[[], bool] = never) -> distribution.Processed:
        """The distribution at the request's position, after overrides, repetition penalty and sampler. Raises
        `UserError` if there is nothing to predict from."""
        ids = self.ids(request)
        position = place_of(request, ids)
        if not ids:
            raise UserError(NOTHING)
        self.feed(ids, overtaken)
        return self.prediction_at(request, ids, position)

    def target(self, request: Request, overtaken: Callable[[], bool] = never) -> tuple[list[int], list[int]]:
        """The ids before the request's position, and the ids of its target. Raises `UserError` if it has none."""
        ids = self.ids(request)
        position = place_of(request, ids)
        return ids[:position], self.target_ids(request.target or Target(), request, ids[position:], overtaken)

    def _likeliest(self, request: Request, overtaken: Callable[[], bool]) -> int:
        """The id with the largest logit at the request's position, overrides included, on a tie the lowest id."""
        ids = self.ids(request)
        if not ids:
            raise UserError(NOTHING)
        self.feed(ids, overtaken)
        before = self._before(ids, place_of(request, ids))
        if request.overrides:
            changed = distribution.change(self.window.logits(before), request.overrides)
            return int(distribution.Sorted.of(changed).order[0])
        return int(self.window.sorted(before).order[0])

    def target_logits(self, request: Request, overtaken: Callable[[], bool] = never) -> tuple[list[int], Array]:
        """The T ids of the target, and the logits (T, V) for each, given the true tokens before it; float32, from
        the cache if possible. Raises `UserError` if there is no target, or no token before it."""
        before, wanted = self.target(request, overtaken)
        ids, window = self.ids(request), self.window
        self.feed(ids, overtaken)
        at = self._before(ids, len(before))
        self._changes.check_room(at + len(wanted) - 1, window.context)
        return wanted, window.target_logits(wanted, at, overtaken)

    def feed(self, ids: list[int], overtaken: Callable[[], bool] = never) -> int:
        """Make `ids` (its last `context` ones) the window's tokens. Returns the number of tokens that were run."""
        window = self.window
        before = window.forwards
        if len(ids) > window.context:  # else it is a text of `ids`, or the part of one that the model sees
            self.begins_at(len(ids) - window.context)
        try:
            run = window.feed(ids[-window.context :], overtaken)
            self.forward_tokens += run
            return run
        finally:
            self.forwards += window.forwards - before

    def begins_at(self, first: int) -> None:
        """Says which token of its text the model sees first: some changes of parts depend on the tokens' numbers."""
        if self._changes.starts_at(max(0, first)):
            open = self._current()
            open.window.crop(0)
            for cache in (open.screen_cache, open.sorted, open.processed, self._targets):
                cache.clear()

    def target_losses(self, wanted: list[int], position: int, overtaken: Callable[[], bool]) -> list[TokenLoss]:
        """The teacher-forced loss of each of `wanted` after the window's first `position` tokens; cached."""
        window = self.window
        self._changes.check_room(position + len(wanted) - 1, window.context)
        key = (tuple(window.ids[:position]), tuple(wanted))
        if key not in self._targets:
            before = window.forwards
            losses = window.target_losses(wanted, position, overtaken)
            self.forwards += window.forwards - before
            keep(self._targets, key, losses, most=64)
        return self._targets[key]

    def _before(self, ids: list[int], position: int) -> int:
        """How many tokens in the window, which holds the last of `ids`, precede `position`. Raises `UserError` if none
        does, because nothing is predicted there."""
        fed = min(len(ids), self.window.context)
        before = position - (len(ids) - fed)
        if before < 1:
            raise UserError(FIRST if fed == len(ids) else NOT_FED.format(fed))
        return before

    def prediction_at(self, request: Request, ids: list[int], position: int) -> distribution.Processed:
        """The distribution after the first `position` of `ids`, which have been fed. The last few are cached: the table
        reads its rows in many requests."""
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
            keep(open.sorted, key, logits)
        if (processed := open.processed.get((key, sampler))) is None:
            processed = logits.process(sampler)
            keep(open.processed, (key, sampler), processed)
        return processed
