"""The logit lens and the tuned lens: the final LayerNorm and output head applied to every block's residual stream, for the
tuned lens after its translator, at one token and at all tokens of a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tui_llm.common.errors import Overtaken
from tui_llm.facts.place import Place
from tui_llm.facts.request import Request
from tui_llm.facts.tokens import Token
from tui_llm.instruments.answers import answers
from tui_llm.instruments.lens.question import (
    Lens,
    LensCell,
    LensGrid,
    LensGridQuestion,
    LensGuess,
    LensQuestion,
    LensRow,
    layer_of,
)
from tui_llm.instruments.lens.tuned import tuned_lens
from tui_llm.instruments.trace import causal_layout, lens, place_in, traced
from tui_llm.llm.adapters.parts import CausalReadout
from tui_llm.llm.model import device, inside
from tui_llm.llm.predict import distribution, softmax
from tui_llm.session.open_model import OpenModel

_LOGITS = 1 << 22  # logits of the grid computed at a time


@answers(LensQuestion)
@torch.inference_mode()
def answer(open_model: OpenModel, question: LensQuestion, overtaken: Callable[[], bool]) -> Lens:
    """Raises `UserError` if the text has no such token, the target has none, or the logits are invalid."""
    tuned = tuned_lens(open_model, overtaken) if question.tuned else None
    found, fed, place = lens(open_model, question.request, question.number, overtaken, tuned)
    logits = found[:, : open_model.tokenizer.size]  # (N + 1, V)
    softmax.check(logits)
    with device.threads(logits.numel()):
        log_p = logits.double().log_softmax(-1)
        entropies = softmax.entropies_of(log_p.numpy()).tolist()
        final = log_p[-1]
        # p ln(p ÷ q) is 0 if p is 0; computed directly, 0 × (−∞ − −∞) is NaN.
        terms = torch.where(final.isneginf(), 0.0, final.exp() * (final - log_p))
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
            layer_of(row),
            tuple(LensGuess(open_model.token(id), float(log_p[row, id].exp())) for id in order[row]),
            float(log_p[row, target].exp()),
            distribution.rank(logits[row], [target])[0],
            entropies[row],
            divergences[row],
        )
        for row in range(len(logits))
    )
    return Lens(open_model.weights(), place, open_model.token(target), chosen, rows, question.tuned)


@answers(LensGridQuestion)
@torch.inference_mode()
def answer_grid(open_model: OpenModel, question: LensGridQuestion, overtaken: Callable[[], bool]) -> LensGrid:
    """Raises `UserError` if there is no text, the target has no token, or the logits are invalid."""
    request, context = question.request, open_model.window.context
    tuned = tuned_lens(open_model, overtaken) if question.tuned else None
    begin = max(0, question.first, len(open_model.ids(request)) - context)
    streams, unembed, fed, place = _streams(open_model, request, begin, overtaken)
    stop = len(fed) if question.count is None else place.index + max(1, question.count)
    columns = range(place.index, min(stop, len(fed)))
    open_model.feed(fed, overtaken)
    targets, chosen = _targets(open_model, question, fed, columns)
    seen: dict[int, Token] = {}

    def token(id: int) -> Token:
        if id not in seen:
            seen[id] = open_model.token(id)
        return seen[id]

    rows: list[list[LensCell]] = [[] for _ in streams]
    step = max(1, _LOGITS // open_model.tokenizer.size)
    for start in range(columns.start, columns.stop, step):
        part = range(start, min(start + step, columns.stop))
        wanted = targets[start - columns.start :][: len(part)]
        for layer, row in enumerate(rows):
            if overtaken():
                raise Overtaken
            if layer < len(rows) - 1:
                stream = streams[layer, part.start : part.stop]
                stream = stream if tuned is None else tuned.translated(layer, stream)
                logits = unembed(stream)
            else:  # the last layer's are the model's own, bit for bit
                window = open_model.window
                logits = torch.from_numpy(np.stack([window.logits(at + 1) for at in part]))
            row += _cells(logits[:, : open_model.tokenizer.size], wanted, max(1, question.top), token)
    made = tuple(tuple(row) for row in rows)
    return LensGrid(open_model.weights(), place, tuple(map(token, targets)), chosen, made, question.tuned)


def _streams(
    open_model: OpenModel, request: Request, begin: int, overtaken: Callable[[], bool]
) -> tuple[Tensor, Callable[[Tensor], Tensor], list[int], Place]:
    """The residual streams (N + 1, T, C) of the text, what makes logits of streams (n, C), the ids that were fed, and the
    place of token `begin`."""
    if open_model.is_gpt:
        trace, place = traced(open_model, request, begin, overtaken)
        return trace.residuals, partial(inside.unembedded, open_model.gpt), list(trace.ids), place
    fed, place = place_in(open_model, request, begin)
    readout = CausalReadout(causal_layout(open_model))
    return readout.streams(fed), readout.logits, fed, place


def _targets(
    open_model: OpenModel, question: LensGridQuestion, ids: Sequence[int], columns: range
) -> tuple[list[int], str]:
    """The target of each column, and their source."""
    request = question.request
    if request.target is not None and not request.target.own:
        return [open_model.target_ids(request.target, request)[0]] * len(columns), "asked"
    own = list(ids[columns.start + 1 : columns.stop + 1])
    if len(own) < len(columns):
        own += likeliest(torch.from_numpy(open_model.window.logits()), 1)
    return own, "next" if len(ids) > 1 else "likeliest"


def _cells(logits: Tensor, wanted: Sequence[int], top: int, token: Callable[[int], Token]) -> list[LensCell]:
    """A cell for each row of logits (n, V)."""
    array, rows = logits.numpy(), range(len(logits))
    log_p = softmax.log_softmax(array)  # (n, V)
    entropies = softmax.entropies_of(log_p).tolist()
    own = array[rows, list(wanted)]  # (n,)
    ranks = (1 + np.count_nonzero(array > own[:, None], axis=-1)).tolist()
    probabilities = np.exp(log_p[rows, list(wanted)]).tolist()
    cells = []
    for at, row in enumerate(logits):
        ids = likeliest(row, top)
        shares = np.exp(log_p[at, ids]).tolist()
        guesses = tuple(LensGuess(token(id), share) for id, share in zip(ids, shares, strict=True))
        cells.append(LensCell(guesses, float(array[at, ids[0]]), probabilities[at], ranks[at], entropies[at]))
    return cells


def likeliest(logits: Tensor, count: int) -> list[int]:
    """The ids of the `count` largest logits (V,), ties by lower id. Sorts only the candidates for these places."""
    least = logits.topk(min(count, len(logits))).values[-1]
    ids = (logits >= least).nonzero()[:, 0]
    best: list[int] = ids[logits[ids].sort(descending=True, stable=True).indices][:count].tolist()
    return best
