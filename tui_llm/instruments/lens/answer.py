"""The logit lens: the final LayerNorm and output head applied to every block's residual stream."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tui_llm.instruments.answers import answers
from tui_llm.instruments.lens.question import Lens, LensGuess, LensQuestion, LensRow
from tui_llm.instruments.trace import lens
from tui_llm.llm.model import device
from tui_llm.llm.predict import distribution
from tui_llm.session.open_model import OpenModel


@answers(LensQuestion)
@torch.inference_mode()
def answer(open_model: OpenModel, question: LensQuestion, overtaken: Callable[[], bool]) -> Lens:
    """Raises `UserError` if the text has no such token, the target has none, or the logits are invalid."""
    found, fed, place = lens(open_model, question.request, question.number, overtaken)
    logits = found[:, : open_model.tokenizer.size]  # (N + 1, V)
    distribution.check(logits)
    with device.threads(logits.numel()):
        log_p = logits.log_softmax(-1)
        entropies = distribution.entropies(logits).tolist()
        final = log_p[-1].double()
        # p ln(p ÷ q) is 0 if p is 0; computed directly, 0 × (−∞ − −∞) is NaN.
        terms = torch.where(final.isneginf(), 0.0, final.exp() * (final - log_p.double()))
        divergences = terms.sum(-1).clamp(min=0.0).tolist()  # KL ≥ 0; rounding can make it negative
        order = [likeliest(row, max(1, question.top)) for row in logits]
    request, following = question.request, fed[place.index + 1 :]
    if request.target is not None:
        target, chosen = open_model.target_ids(request.target, request, following)[0], "asked"
    elif following:
        target, chosen = following[0], "next"
    else:
        target, chosen = order[-1][0], "likeliest"
    rows = tuple(
        LensRow(
            layer,
            tuple(LensGuess(open_model.token(id), float(log_p[layer, id].exp())) for id in order[layer]),
            float(log_p[layer, target].exp()),
            distribution.rank(logits[layer], [target])[0],
            entropies[layer],
            divergences[layer],
        )
        for layer in range(len(logits))
    )
    return Lens(open_model.weights(), place, open_model.token(target), chosen, rows)


def likeliest(logits: Tensor, count: int) -> list[int]:
    """The ids of the `count` largest logits (V,), ties by lower id. Sorts only the candidates for these places."""
    least = logits.topk(min(count, len(logits))).values[-1]
    ids = (logits >= least).nonzero()[:, 0]
    best: list[int] = ids[logits[ids].sort(descending=True, stable=True).indices][:count].tolist()
    return best
