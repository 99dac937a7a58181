"""Direct logit attribution of the target and of its rival."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tui_llm.common.errors import UserError
from tui_llm.instruments.answers import answers
from tui_llm.instruments.lens.answer import likeliest
from tui_llm.instruments.trace import layout, place_in
from tui_llm.instruments.why.question import PartOfLogit, Why, WhyQuestion
from tui_llm.llm.model.attribution import attribute
from tui_llm.session.open_model import OpenModel


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
    rival = question.rival
    if rival is None:
        rival = next((id for id in likeliest(logits, 2) if id != target), target)
    elif not 0 <= rival < len(logits):
        raise UserError(f"there is no token {rival}; ids go from 0 to {len(logits) - 1}")
    found = attribute(
        layout(open_model), fed, place.index, (target, rival), changed=bool(question.request.interventions)
    )
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
        found.scale,
        tuple(PartOfLogit(part, *values) for part, values in zip(found.parts, found.values.tolist(), strict=True)),
    )
