"""Direct logit attribution of the target and of its rival."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from tui_llm.common.errors import UserError
from tui_llm.facts.interventions import MLP, ModelPart, check_parts, lost_in, refusal, replaced
from tui_llm.instruments.answers import answers
from tui_llm.instruments.lens.answer import likeliest
from tui_llm.instruments.trace import layout, place_in
from tui_llm.instruments.why.question import NeuronOfLogit, Neurons, NeuronsQuestion, PartOfLogit, Why, WhyQuestion
from tui_llm.llm.model.attribution import attribute, attribute_neurons
from tui_llm.session.open_model import OpenModel

CHOICES = 10  # the most probable tokens, from which a rival can be chosen


@answers(WhyQuestion)
def answer(open_model: OpenModel, question: WhyQuestion, overtaken: Callable[[], bool]) -> Why:
    """Raises `UserError` if the text has no such token, or the target or rival has none."""
    fed, place = place_in(open_model, question.request, question.number)
    open_model.feed(fed, overtaken)
    logits = torch.as_tensor(open_model.window.logits(place.index + 1))  # (V,)
    following, request = fed[place.index + 1 :], question.request
    if request.target is not None:
        target, chosen = open_model.target_ids(request.target, request, following)[0], "asked"
    elif following:
        target, chosen = following[0], "next"
    else:
        target, chosen = likeliest(logits, 1)[0], "likeliest"
    best = likeliest(logits, CHOICES)
    rival = _rival(open_model, question)
    if rival is None:
        rival = next((id for id in best if id != target), target)
    elif not 0 <= rival < len(logits):
        raise UserError(f"there is no token {rival}; ids go from 0 to {len(logits) - 1}")
    found = attribute(
        layout(open_model), fed, place.index, (target, rival), changes=request.interventions, first=place.first
    )
    _check(found.values)
    logit, rival_logit = found.values.sum(0).tolist()
    return Why(
        open_model.weights(),
        place,
        open_model.token(target),
        chosen,
        open_model.token(rival),
        logit,
        rival_logit,
        float(logits[target]),
        float(logits[rival]),
        tuple(open_model.token(id) for id in best),
        found.scale,
        tuple(PartOfLogit(part, *values) for part, values in zip(found.parts, found.values.tolist(), strict=True)),
    )


@answers(NeuronsQuestion)
@torch.inference_mode()
def answer_neurons(open_model: OpenModel, question: NeuronsQuestion, overtaken: Callable[[], bool]) -> Neurons:
    """Raises `UserError` if the text has no such token, the model no such layer, or its MLP is changed at this token."""
    fed, place = place_in(open_model, question.request, question.number)
    model, mlp, on = layout(open_model), ModelPart(MLP, question.layer), question.request.interventions
    check_parts([mlp], model.layers, model.heads)
    changed = [one for one in on if one.part == mlp and one.acts_at(place.number)]
    if changed or lost_in(mlp, replaced(on, place.number)):
        raise UserError(refusal(f"what {mlp.name} adds is changed, so it is not the sum of its neurons", on))
    pair = question.target, question.rival
    found = attribute_neurons(model, fed, place.index, question.layer, pair)
    _check(found.values)
    differences = found.values[:, 0] - found.values[:, 1]
    order = differences.abs().argsort(descending=True, stable=True).tolist()
    first, others = order[: question.count], order[question.count :]
    pushes = found.pushes(model, first)[:, : open_model.tokenizer.size]
    neurons = tuple(
        NeuronOfLogit(
            at,
            float(found.activations[at]),
            float(found.values[at, 0]),
            float(found.values[at, 1]),
            tuple(open_model.token(id) for id in likeliest(row, question.tokens)),
        )
        for at, row in zip(first, pushes, strict=True)
    )
    rest, other_rest = found.values[others].sum(0).tolist()
    bias, other_bias = found.bias.tolist()
    return Neurons(
        open_model.weights(),
        open_model.token(question.target),
        open_model.token(question.rival),
        question.layer,
        neurons,
        len(others),
        (rest, other_rest),
        (bias, other_bias),
    )


def _check(values: torch.Tensor) -> None:
    if not values.isfinite().all():
        raise UserError(
            "the logit's parts hold NaN or infinity: the weights are damaged or training has diverged; open another model "
            "or an earlier checkpoint"
        )


def _rival(open_model: OpenModel, question: WhyQuestion) -> int | None:
    text = question.rival_text
    if text is None:
        return question.rival
    if number := re.fullmatch(r"#([0-9]{1,9})", text):
        return int(number[1])
    ids = open_model.tokenizer.encode_after(text, allow_special=question.request.allow_special)
    if not ids:
        raise UserError("the rival is empty; give some text, such as ' mat', or #464 for the id 464")
    return ids[0]
