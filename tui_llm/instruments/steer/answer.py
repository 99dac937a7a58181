"""A direction in the residual stream: before and after it is added, and its file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.common.paths import absolute
from tui_llm.facts.interventions import RESIDUAL, ModelPart, check_parts
from tui_llm.facts.request import Request
from tui_llm.instruments.answers import answers
from tui_llm.instruments.steer.question import (
    Direction,
    Steering,
    SteerQuestion,
    SteerSaveQuestion,
    SteerSide,
    check_coefficient,
    intervention_of,
)
from tui_llm.instruments.trace import layout
from tui_llm.llm.model import steering_file
from tui_llm.llm.model.interventions import record, steering_direction
from tui_llm.session.continuation import continuation
from tui_llm.session.messages import NOTHING
from tui_llm.session.open_model import OpenModel

Overtaken = Callable[[], bool]


@dataclasses.dataclass(frozen=True)
class _Found:
    """A direction with its vector (C,) and the ids of its prompts."""

    direction: Direction
    layer: int
    vector: Tensor
    toward: tuple[int, ...] = ()
    against: tuple[int, ...] = ()
    made_with: str = ""


@answers(SteerQuestion)
def answer(open_model: OpenModel, question: SteerQuestion, overtaken: Overtaken) -> Steering:
    """Raises `UserError` if there is no text, or no such direction for this model; `Overtaken`."""
    check_coefficient(question.coefficient)
    request = dataclasses.replace(question.request, position=None, overrides=())  # what-if logits are not the model's
    ids = open_model.ids(request)
    if not ids:
        raise UserError(NOTHING)
    on = request.interventions
    open_model.intervene(())  # the direction is of the model as it is
    found = _find(open_model, request, question.direction)
    change = intervention_of(question.direction, found.layer, found.toward, found.against, question.coefficient)
    try:
        open_model.intervene(on)
        part = ModelPart(RESIDUAL, found.layer)
        stream = record(layout(open_model), ids[-open_model.window.context :], [part])[part][-1]
        before = _side(open_model, request, question, overtaken)
        open_model.intervene((*on, change))
        after = _side(open_model, dataclasses.replace(request, interventions=(*on, change)), question, overtaken)
    finally:
        open_model.intervene(on)
    return Steering(
        open_model.weights(),
        dataclasses.replace(question.direction, layer=found.layer),
        question.coefficient,
        float(found.vector.norm()),
        float(stream.norm()),
        before,
        after,
        change,
        found.made_with,
    )


@answers(SteerSaveQuestion)
def save(open_model: OpenModel, question: SteerSaveQuestion, overtaken: Overtaken) -> str:
    """Raises `UserError` if there is no such direction, or the file can't be written; an existing file is then
    unchanged."""
    if not question.path.strip():
        raise UserError("the path is empty; give the name of a new file, such as happy.safetensors")
    on = question.request.interventions
    open_model.intervene(())
    try:
        found = _find(open_model, question.request, question.direction)
    finally:
        open_model.intervene(on)
    path: Path = absolute(question.path)
    weights, asked = open_model.weights(), question.direction
    made_with = found.made_with or weights.name + ("" if weights.step is None else f", step {weights.step}")
    made = steering_file.SteeringFile(found.vector, found.layer, made_with, asked.toward, asked.against)
    steering_file.save(path, made, force=question.force)
    return str(path)


def _find(open_model: OpenModel, request: Request, asked: Direction) -> _Found:
    weights = open_model.weights()
    known = steering_file.load(asked.file) if asked.file else None
    layer = known.layer if known is not None and asked.layer is None else asked.layer
    if layer is None:
        raise UserError(
            f"{asked.file} does not say for which layer it is; give one, from 0 to {weights.layers}"
            if known is not None
            else f"give a layer, from 0 to {weights.layers}"
        )
    part = ModelPart(RESIDUAL, layer)
    check_parts((part,), weights.layers, weights.heads)
    if known is not None:
        if len(known.direction) != weights.width:
            raise UserError(
                f"{asked.file} holds a direction of {len(known.direction)} numbers; {weights.name}'s width is {weights.width}"
            )
        return _Found(asked, layer, known.direction, made_with=known.model)
    toward, against = (_ids(open_model, request, text) for text in (asked.toward, asked.against))
    if toward == against:
        raise UserError("both prompts have the same tokens, so there is no direction between them; change one of them")
    vector = steering_direction(layout(open_model), part, toward, against)
    if not bool(torch.isfinite(vector).all()):
        raise UserError(f"the residual stream before block {layer} is not finite after one of the prompts")
    return _Found(asked, layer, vector, toward, against)


def _ids(open_model: OpenModel, request: Request, text: str) -> tuple[int, ...]:
    whole = dataclasses.replace(request, prompt=text, continuation=(), position=None, overrides=())
    ids = open_model.ids(whole)[-open_model.window.context :] if text else []
    if not ids:
        raise UserError("a direction needs two prompts, one to steer toward and one to steer away from; one is empty")
    return tuple(ids)


def _side(open_model: OpenModel, request: Request, question: SteerQuestion, overtaken: Overtaken) -> SteerSide:
    ids = open_model.ids(request)
    open_model.feed(ids, overtaken)
    shown = open_model.prediction_at(request, ids, len(ids)).rows(question.rows, open_model.bytes_after(ids))
    made = continuation(
        open_model,
        ids,
        request.sampler,
        seed=question.seed,
        count=question.tokens,
        overtaken=overtaken,
        drawn=request.continuation,
    )
    return SteerSide(tuple(shown), tuple(made))
