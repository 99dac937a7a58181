"""From named parts to interventions, for the command line and Python; `ask` answers a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.facts.interventions import KEY, MEAN, PATCH, ZERO, Intervention, ModelPart
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question, Request
from tui_llm.instruments.ablate.question import Effects, EffectsQuestion, Reference, ReferenceQuestion, ranked_parts

Ask = Callable[[Question[Any]], Any]


def intervention(part: ModelPart, how: str, reference: Reference | None) -> Intervention:
    """The change of one part; attention to a token can only be switched off."""
    if part.kind == KEY or reference is None or how == ZERO:
        return Intervention(part)
    return Intervention(part, how, reference.ids, shift=reference.shift if how == PATCH else 0)


def interventions_of(
    ask: Ask, request: Request, parts: Sequence[ModelPart], *, mean: bool = False, other: str | None = None
) -> tuple[Intervention, ...]:
    """The parts switched off, at their mean over the request's text, or from the prompt `other`. Raises `UserError` if
    a text is empty, or the text has no such token."""
    own: Reference = ask(ReferenceQuestion(request))
    for part in parts:
        if part.kind == KEY and part.layer >= own.tokens:
            raise UserError(f"there is no token {part.layer}: the text's go from 0 to {own.tokens - 1}")
    how, reference = _how(ask, request, mean, other)
    return tuple(intervention(part, how, reference) for part in parts)


def effects_of_all(
    ask: Ask, request: Request, weights: Weights, *, mean: bool = False, other: str | None = None
) -> Effects:
    """The effect of each part alone, of all parts."""
    how, reference = _how(ask, request, mean, other)
    parts = tuple(part for row in ranked_parts(weights.layers, weights.heads, weights.positions) for part in row)
    if reference is None:
        return ask(EffectsQuestion(request, parts, how))
    shift = reference.shift if how == PATCH else 0
    return ask(EffectsQuestion(request, parts, how, reference.ids, shift))


def _how(ask: Ask, request: Request, mean: bool, other: str | None) -> tuple[str, Reference | None]:
    if not mean and other is None:
        return ZERO, None
    return (MEAN if mean else PATCH), ask(ReferenceQuestion(request, other))
