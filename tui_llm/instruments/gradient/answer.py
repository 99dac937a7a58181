"""Compute p − y for one token of the target, under teacher forcing."""

from __future__ import annotations

from collections.abc import Callable

from tui_llm.common.errors import UserError
from tui_llm.instruments.answers import answers
from tui_llm.instruments.gradient.question import Gradient, GradientQuestion, LogitGradient
from tui_llm.llm.predict.distribution import change, descending
from tui_llm.llm.predict.loss import gradient
from tui_llm.llm.predict.softmax import probabilities
from tui_llm.session.open_model import OpenModel


@answers(GradientQuestion)
def answer(open_model: OpenModel, question: GradientQuestion, overtaken: Callable[[], bool]) -> Gradient:
    """Raises `UserError` if there is no target, or it has no token with that index."""
    wanted, logits = open_model.target_logits(question.request, overtaken)
    if not 0 <= question.index < len(wanted):
        raise UserError(f"the target has {len(wanted)} tokens; there is no token number {question.index + 1}")
    target, row = wanted[question.index], logits[question.index]
    if question.index == 0 and question.request.overrides:  # they change the first token's prediction
        row = change(row, question.request.overrides)
    components = gradient(row, target)  # (V,)
    # The others' components are their p. By their logits they have an order also where p is too small for a float.
    count = max(0, question.count)
    others = [id for id in descending(row)[1][: count + 1].tolist() if id != target][:count]
    shown = sorted([target, *others], key=lambda id: -abs(float(components[id])))
    p = probabilities(row)
    rest = components.copy()
    rest[shown] = 0.0
    return Gradient(
        question,
        open_model.token(target),
        len(wanted),
        tuple(LogitGradient(open_model.token(id), float(p[id]), float(components[id]), id == target) for id in shown),
        len(row) - len(shown),
        float(rest.sum()),
    )
