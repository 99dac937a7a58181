"""Ablation of parts, together and each alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.facts.interventions import MEAN, Intervention
from tui_llm.facts.prediction import TokenLoss
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.ablate.question import (
    AblateQuestion,
    Ablation,
    Effects,
    EffectsQuestion,
    PartEffect,
    Reference,
    ReferenceQuestion,
    TargetValues,
)
from tui_llm.instruments.answers import answers
from tui_llm.instruments.trace import target_in, text_blocks
from tui_llm.llm.model.part_effects import PartEffects
from tui_llm.llm.predict.loss import token_losses
from tui_llm.session.caches import place_of
from tui_llm.session.messages import NOTHING
from tui_llm.session.open_model import OpenModel

KEY = "ablate"


@answers(AblateQuestion)
def answer(open_model: OpenModel, question: AblateQuestion, overtaken: Callable[[], bool]) -> Ablation:
    """Raises `UserError` if there is no target or no such part; `Overtaken`."""
    open_model.intervene(())
    request, chosen = _with_target(open_model, question.request)
    wanted, logits = open_model.target_logits(request, overtaken)
    before = _values(token_losses(logits, wanted))
    open_model.intervene(question.interventions)
    _, logits = open_model.target_logits(request, overtaken)
    after = _values(token_losses(logits, wanted))
    target = tuple(open_model.token(id) for id in wanted)
    return Ablation(open_model.weights(), target, chosen, question.interventions, before, after)


@answers(EffectsQuestion)
def effects(open_model: OpenModel, question: EffectsQuestion, overtaken: Callable[[], bool]) -> Effects:
    """Raises `UserError` if there is no target or no such part, or the model's parts are not known; `Overtaken`."""
    open_model.intervene(())
    request, chosen = _with_target(open_model, question.request)
    before, wanted, first = target_in(open_model, request, overtaken)
    if not before:
        raise UserError("nothing precedes the first token, so nothing predicts it: move the token cursor on")
    ids = [*before, *wanted[:-1]]
    fed = ids[-open_model.window.context :]
    if len(wanted) > len(fed):
        raise UserError(f"the target has {len(wanted)} tokens; the model's context is {len(fed)}")
    run = _run(open_model, fed, len(wanted), overtaken)
    reference = tuple(question.reference) or (tuple(fed) if question.how == MEAN else ())
    first += len(ids) - len(fed)
    shift = question.shift + first  # the ranking counts tokens from the first that is fed
    changes = [Intervention(part, question.how, reference, shift=shift) for part in question.parts]
    found = run.logits(changes, overtaken)
    return Effects(
        open_model.weights(),
        tuple(open_model.token(id) for id in wanted),
        chosen,
        _values(token_losses(run.unchanged, wanted)),
        tuple(
            PartEffect(part, _values(token_losses(logits, wanted)))
            for part, logits in zip(question.parts, found, strict=True)
        ),
        first,
        tuple(open_model.token(id) for id in fed[: len(fed) - len(wanted) + 1]),
    )


@answers(ReferenceQuestion)
def reference(open_model: OpenModel, question: ReferenceQuestion, overtaken: Callable[[], bool]) -> Reference:
    """Raises `UserError` if the text is empty."""
    request = question.request
    text = open_model.ids(request)
    count = place_of(request, text)
    ids = text
    if question.text is not None:
        ids = open_model.ids(dataclasses.replace(request, prompt=question.text, continuation=(), position=None))
    if not text:
        raise UserError(NOTHING)
    if not ids:
        raise UserError("that text has no tokens: type a prompt whose values shall be used")
    fed = ids[-open_model.window.context :]
    return Reference(tuple(fed), len(fed) - count, count)


def _with_target(open_model: OpenModel, request: Request) -> tuple[Request, str]:
    """The request with a target whose ids no change of the model changes; and what chose it."""
    ids = open_model.ids(request)
    inside = place_of(request, ids) < len(ids)
    target = request.target
    if target is None:
        target = Target(own=True) if inside else Target(likeliest=True)
    if target.likeliest:
        _, wanted = open_model.target(dataclasses.replace(request, target=target, interventions=()))
        target = Target(id=wanted[0])
        return dataclasses.replace(request, target=target, overrides=()), "likeliest"
    return dataclasses.replace(request, target=target, overrides=()), "next" if target.own else "asked"


def _run(open_model: OpenModel, fed: list[int], count: int, overtaken: Callable[[], bool]) -> PartEffects:
    """The unchanged forward pass, cached between questions."""
    known: PartEffects | None = open_model.screen_cache.get(KEY)
    if known is None or (known.ids, known.count) != (tuple(fed), count):
        open_model.screen_cache.pop(KEY, None)  # free the old one first: two would need twice the memory
        known = open_model.screen_cache[KEY] = PartEffects(text_blocks(open_model, fed), count, overtaken)
    return known


def _values(losses: Sequence[TokenLoss] | Any) -> TargetValues:
    first = losses[0]
    mean = math.fsum(one.nats for one in losses) / len(losses)
    return TargetValues(first.logit, mean, first.probability, first.rank)
