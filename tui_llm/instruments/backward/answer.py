"""The norms of the gradients of one backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.common.numbers import memory_size
from tui_llm.instruments.answers import answers
from tui_llm.instruments.backward.kinds import Kinds, causal_kinds, gpt_kinds
from tui_llm.instruments.backward.question import (
    ALL_BLOCK_KINDS,
    OTHER_KINDS,
    Backward,
    BackwardQuestion,
    GradientNorm,
    Saliency,
)
from tui_llm.instruments.trace import layout, target_in
from tui_llm.llm.learn.backward import Differentiable, DifferentiableGPT, ModelGradients, gradients
from tui_llm.session.open_model import OpenModel


@answers(BackwardQuestion)
def answer(open_model: OpenModel, question: BackwardQuestion, overtaken: Callable[[], bool]) -> Backward:
    """Raises `UserError` if there is no target, the text has no token before it, the weights have fewer bits, the model's parts are
    not known, or memory runs out."""
    if (dtype := open_model.weights().dtype) != "fp32":
        raise UserError(
            f"{dtype} weights have no gradient, they are for inference only; open the model with --weights fp32"
        )
    inputs, wanted, first = _row(open_model, question, overtaken)
    model, kinds, tied = _model(open_model)
    try:
        found = gradients(model, inputs, wanted, open_model.tokenizer.size)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        need = memory_size(4 * model.parameters)
        raise UserError(f"there is not enough memory: the gradients need {need} beside the model") from error
    norms = _norms(found, kinds)
    grad_norm = math.sqrt(math.fsum(one.norm**2 for one in norms))
    if not math.isfinite(found.loss) or not math.isfinite(grad_norm):
        raise UserError("the gradient is not finite: the weights are damaged or training has diverged")
    products = (found.embeddings * found.embedded).double().sum(-1).tolist()
    sizes = found.embeddings.double().norm(dim=-1).tolist()
    return Backward(
        open_model.weights(),
        tuple(open_model.token(id) for id in wanted),
        tuple(found.losses.tolist()),
        question.whole,
        found.loss,
        grad_norm,
        tied,
        norms,
        tuple(Saliency(first + at, open_model.token(id), sizes[at], products[at]) for at, id in enumerate(inputs)),
    )


def _model(open_model: OpenModel) -> tuple[Differentiable, Kinds, bool]:
    """The model, the kinds of its parameters, and whether its output head is the token embedding."""
    if open_model.is_gpt:
        model = open_model.gpt
        return DifferentiableGPT(model), gpt_kinds(model.config), model.config.tied
    from tui_llm.llm.adapters.parts import CausalLayout, DifferentiableCausal

    known = layout(open_model)
    assert isinstance(known, CausalLayout)
    made = DifferentiableCausal(known.predictor)
    return made, causal_kinds(known), made.module.get_output_embeddings().weight is made.embedding.weight


def _row(
    open_model: OpenModel, question: BackwardQuestion, overtaken: Callable[[], bool]
) -> tuple[list[int], list[int], int]:
    """The ids that are fed, the targets of the last of them, and the number of the first in the text."""
    request, context = question.request, open_model.window.context
    if question.whole:
        ids = open_model.ids(request)
        if len(ids) < 2:
            raise UserError("one token makes no pair of input and target: type more text")
        row = ids[-context - 1 :]
        return row[:-1], row[1:], len(ids) - len(row)
    before, wanted, first = target_in(open_model, request, overtaken)
    if not before:
        raise UserError("nothing is predicted before the first token: type some text first")
    if len(wanted) > context:
        raise UserError(f"the target has {len(wanted)} tokens; the model's context is {context}")
    row = [*before, *wanted[:-1]]
    inputs = row[-context:]
    return inputs, wanted, first + len(row) - len(inputs)


def _norms(found: ModelGradients, kinds: Kinds) -> tuple[GradientNorm, ...]:
    """The norms by layer and kind, in the order of the forward pass."""
    cells: dict[tuple[int, str], list[Tensor]] = {}
    for name, gradient in found.parameters.items():
        for layer, kind, part in kinds(name, gradient):
            cells.setdefault((layer, kind), []).append(part)
    made = {
        (layer, kind): GradientNorm(
            layer,
            kind,
            math.sqrt(math.fsum(float(one.double().square().sum()) for one in parts)),
            sum(one.numel() for one in parts),
        )
        for (layer, kind), parts in cells.items()
    }
    layers = range(max(layer for layer, _ in made) + 1)
    blocks = [(layer, kind) for layer in layers for kind in ALL_BLOCK_KINDS]
    outside = [(-1, kind) for kind in OTHER_KINDS]
    return tuple(made[place] for place in [*outside[:2], *blocks, *outside[2:]] if place in made)
