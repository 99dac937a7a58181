"""Learn this: train a copy of the weights, and compare its predictions with the original's for the prompt and for
pinned prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.pin import Pin
from tui_llm.facts.prediction import TokenLoss
from tui_llm.facts.recipe import check as check_recipe
from tui_llm.facts.request import Request
from tui_llm.facts.tokens import Token
from tui_llm.instruments.answers import answers
from tui_llm.instruments.learn.model_folder import trainable, write_folder
from tui_llm.instruments.learn.question import (
    LONGEST_TARGET,
    MOST_STEPS,
    CandidateChange,
    KeepQuestion,
    Kept,
    Learned,
    LearnQuestion,
    PinChange,
    TargetState,
)
from tui_llm.instruments.trace import target_in
from tui_llm.llm.learn.learner import Learner
from tui_llm.llm.model import device
from tui_llm.llm.model.model import GPT
from tui_llm.llm.predict.forced import forced_logits
from tui_llm.llm.predict.loss import token_losses
from tui_llm.llm.predict.softmax import Array, check, log_softmax
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.session.open_model import OpenModel, never

EMPTY = "there is no text before the target: type a prompt, or put <|endoftext|> in front"


@dataclass(frozen=True, slots=True)
class _Seen:
    """A model's log-probabilities (V,) after a prompt, and the losses of the target's tokens."""

    logs: Array
    losses: list[TokenLoss]

    @property
    def mean(self) -> float | None:
        return math.fsum(one.nats for one in self.losses) / len(self.losses) if self.losses else None

    @property
    def probability(self) -> float | None:
        return math.exp(-math.fsum(one.nats for one in self.losses)) if self.losses else None


@dataclass
class _LearningSession:
    ids: list[int]
    wanted: list[int]
    learner: Learner
    before: dict[Pin | None, _Seen] = field(default_factory=dict)  # the open model's; None: the trained prompt


@answers(LearnQuestion)
def learn(open_model: OpenModel, question: LearnQuestion, overtaken: Callable[[], bool]) -> Learned:
    """Raises `UserError` if there is nothing to learn, or a step can't be taken. The open model is never changed."""
    if not 0 <= question.at <= MOST_STEPS:
        raise UserError(f"{question.at} steps; up to {MOST_STEPS} can be taken here: for more, `tui-llm train --from`")
    check_recipe(question.recipe)
    session = _session(open_model, question.request, overtaken)
    session.learner.move_to(question.at, question.recipe, overtaken)
    return _compared(open_model, question, session, overtaken)


def _session(open_model: OpenModel, request: Request, overtaken: Callable[[], bool]) -> _LearningSession:
    """The cached session if it is for this prompt and target, else a new one that replaces it."""
    model = trainable(open_model)
    ids, wanted, _ = target_in(open_model, request, overtaken)
    if not ids:
        raise UserError(EMPTY)
    if len(wanted) > LONGEST_TARGET:
        raise UserError(f"the target has {len(wanted):,} tokens; up to {LONGEST_TARGET} can be learned here")
    known = open_model.screen_cache.get("learn")
    if isinstance(known, _LearningSession) and (known.ids, known.wanted) == (ids, wanted):
        return known
    open_model.screen_cache["learn"] = made = _LearningSession(
        ids, wanted, Learner(model, ids, wanted, open_model.tokenizer.size)
    )
    return made


def _compared(
    open_model: OpenModel, question: LearnQuestion, session: _LearningSession, overtaken: Callable[[], bool]
) -> Learned:
    learner = session.learner
    after = _seen(learner.model, session.ids, session.wanted, open_model.tokenizer.size)
    if None not in session.before:
        session.before[None] = _seen(open_model.gpt, session.ids, session.wanted, open_model.tokenizer.size)
    before = session.before[None]
    changes = []
    for pin in question.pins:
        if overtaken():
            raise Overtaken
        changes.append(_change(open_model, session, pin))
    return Learned(
        question,
        open_model.weights(),
        token_text(b"".join(open_model.token(id).bytes for id in session.ids[-200:])),
        tuple(open_model.token(id) for id in session.wanted),
        _state(before),
        _state(after),
        _candidates(open_model, before.logs, after.logs, session.wanted[0], question.top),
        tuple(changes),
        tuple(learner.steps),
        learner.bytes(question.recipe.optimizer),
        *learner.stored,
    )


@torch.no_grad()
def _seen(model: GPT, ids: Sequence[int], wanted: Sequence[int], size: int) -> _Seen:
    with device.threads(model.config.parameters() * (len(ids) + len(wanted))):
        rows = forced_logits(model, ids, wanted, size).cpu()
        check(rows)
        return _Seen(log_softmax(rows[0]), token_losses(rows, wanted) if wanted else [])


def _state(seen: _Seen) -> TargetState:
    assert seen.mean is not None and seen.probability is not None
    return TargetState(seen.mean, seen.probability, seen.losses[0].rank)


def _candidates(
    open_model: OpenModel, before: Array, after: Array, target: int, top: int
) -> tuple[CandidateChange, ...]:
    """The `top` most probable tokens before and those after, and the target, in descending order of probability
    after."""
    ids = {target}
    for logs in (before, after):
        ids.update(np.argsort(-logs, stable=True)[: max(0, top)].tolist())  # in float64: float32 would make ties
    return tuple(
        CandidateChange(
            open_model.token(id),
            math.exp(before[id]),
            math.exp(after[id]),
            1 + int((before > before[id]).sum()),
            1 + int((after > after[id]).sum()),
            id == target,
        )
        for id in sorted(ids, key=lambda id: (-float(after[id]), id))
    )


def _change(open_model: OpenModel, session: _LearningSession, pin: Pin) -> PinChange:
    """The change in the predictions for a pin. If it can't be read, the reason is in `problem`."""
    vocabulary = open_model.tokenizer
    try:
        ids, wanted = vocabulary.encode(pin.prompt), vocabulary.encode_after(pin.target or "")
        if not ids:
            raise UserError("it has no tokens")
        if len(wanted) > LONGEST_TARGET:
            raise UserError(f"its target has {len(wanted):,} tokens; up to {LONGEST_TARGET} can be read")
        if pin not in session.before:
            session.before[pin] = _seen(open_model.gpt, ids, wanted, vocabulary.size)
        before, after = session.before[pin], _seen(session.learner.model, ids, wanted, vocabulary.size)
    except UserError as error:
        return PinChange(pin, None, None, None, None, None, None, 0.0, str(error))
    return PinChange(
        pin,
        before.mean,
        after.mean,
        before.probability,
        after.probability,
        _likeliest(open_model, before.logs),
        _likeliest(open_model, after.logs),
        max(0.0, _divergence(before.logs, after.logs)),
    )


@np.errstate(invalid="ignore")  # −∞ − −∞
def _divergence(before: Array, after: Array) -> float:
    """KL of the distribution before from the one after, Σ p ln(p ÷ q), from their logarithms (V,)."""
    terms = np.exp(before) * (before - after)
    return float(np.where(np.isnan(terms), 0.0, terms).sum(dtype=np.float64))


def _likeliest(open_model: OpenModel, logs: Array) -> Token:
    return open_model.token(int(logs.argmax()))


@answers(KeepQuestion)
def keep(open_model: OpenModel, question: KeepQuestion, overtaken: Callable[[], bool]) -> Kept:
    """Raises `UserError` if no step has been taken, or the folder can't be made."""
    session = _session(open_model, question.request, never)
    steps = session.learner.steps
    if not steps:
        raise UserError("there is nothing to save yet: take a step first")
    folder: Path = write_folder(open_model, session.learner, question.name, force=question.force)
    return Kept(folder.name, str(folder), len(steps))
