"""Read one text with two or three models, and compare the predictions and the losses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.answers import answers
from tui_llm.instruments.compare_models.question import (
    MOST_OTHERS,
    ComparedModel,
    CompareModelsQuestion,
    Divergence,
    ModelComparison,
    SharedCandidate,
    TextPiece,
)
from tui_llm.llm.hub import lookup
from tui_llm.llm.predict.softmax import Array, log_softmax
from tui_llm.llm.predict.units import bits
from tui_llm.llm.tokens.text import clean
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.session import reading
from tui_llm.session.continuation import continuation
from tui_llm.session.open_model import OpenModel

_ALL = 1 << 30
DIFFERENT_TEXT = "the vocabularies don't give the same text back, so it can't be compared piece by piece"
DIFFERENT_TEMPLATES = (
    "the chat templates write different texts around the message, so they can't be compared piece by piece"
)
NOTHING_SHARED = (
    "there is no piece for which all models have a loss: type more text, or put a start token in front of it"
)


@answers(CompareModelsQuestion)
def answer(open_model: OpenModel, question: CompareModelsQuestion, overtaken: Callable[[], bool]) -> ModelComparison:
    """Raises `UserError` if another model can't be opened or one can't read the text, and `Overtaken`.

    At most three models are in memory: the others stay until their screen closes or others are asked for.
    """
    if not 1 <= len(question.others) <= MOST_OTHERS:
        raise UserError(f"give 1 to {MOST_OTHERS} models to compare with, not {len(question.others)}")
    request = _as_text(open_model, question.request)
    models = (open_model, *_others(open_model, question.others, overtaken))
    # Changes of the open model's parts are not made in the others.
    plain = dataclasses.replace(request, interventions=())
    sides = (
        _side(open_model, request, question, overtaken),
        *(_side(model, plain, question, overtaken) for model in models[1:]),
    )
    problem, pieces = "", list[TextPiece]()
    texts = [clean(model.fed_text(request)).encode() for model in models]
    try:
        pieces = list(_pieces([side.reading for side in sides], texts))
    except ValueError:
        problem = DIFFERENT_TEXT if len(set(texts)) == 1 else DIFFERENT_TEMPLATES
    if not pieces and not problem:
        problem = NOTHING_SHARED
    divergences, candidates, differences = _next_token(models, question.rows)
    return ModelComparison(
        sides,
        divergences,
        candidates,
        differences,
        sum(piece.bytes for piece in pieces),
        tuple(math.fsum(piece.bits[at] for piece in pieces) for at in range(len(sides))),
        tuple(sorted(pieces, key=_agreement)[: question.rows]),
        problem,
    )


def _agreement(piece: TextPiece) -> float:
    """Smallest where the losses differ most. A difference of two infinities is no number: such pieces agree."""
    least, most = min(piece.bits), max(piece.bits)
    return least - most if least != most else 0.0


def _as_text(model: OpenModel, request: Request) -> Request:
    """The request without token ids, which mean other tokens to another model."""
    ids = model.ids(request)
    own, count = model.tokenizer, len(request.continuation)
    before = ids[: len(ids) - count]
    prompt = request.prompt + own.decode(request.continuation, before[-1] if before else None)
    plain = dataclasses.replace(request, position=None, tokenizer=None, overrides=())
    return dataclasses.replace(plain, prompt=prompt, continuation=(), target=_target_as_text(model, plain))


def _target_as_text(model: OpenModel, request: Request) -> Target | None:
    """The target as text, the same for all models: likeliest is what the open model finds likeliest. None if there is none,
    it is in the text, whose pieces are compared, or no text is read as that token: its name is not what it stands for."""
    target = request.target
    if target is None or target.own:
        return None
    if target.text is not None:
        return target
    ids = model.target_ids(target, request)
    made = Target(text=model.token(ids[0]).text)
    try:
        return made if model.target_ids(made, request) == ids else None
    except UserError:  # its text is empty
        return None


def _others(open_model: OpenModel, specs: Sequence[str], overtaken: Callable[[], bool]) -> list[OpenModel]:
    """The other models, opened on the same device; in the open model's weight format unless a spec names another.
    Raises `UserError`."""
    cache: dict[str, OpenModel] = open_model.screen_cache.setdefault("compare_models", {})
    for spec in set(cache) - set(specs):
        del cache[spec]  # freed before another one is read
    for spec in specs:
        if overtaken():
            raise Overtaken
        if spec in cache:
            cache[spec].refresh()  # a run may have a newer checkpoint
            continue
        name, weights = lookup.with_weights(spec)
        made = OpenModel(str(open_model.device), weights or open_model.dtype)
        made.open(name)
        cache[spec] = made
    return [cache[spec] for spec in specs]


def _side(
    model: OpenModel, request: Request, question: CompareModelsQuestion, overtaken: Callable[[], bool]
) -> ComparedModel:
    asked = dataclasses.replace(request, scores=True, token_window=_ALL, top=question.rows)
    read = reading.read(model, asked, overtaken)
    problem = read.problem or (read.loss.problem if read.loss is not None else None)
    if problem:
        raise UserError(f"{read.weights.name}: {problem}")
    size = sum(len(one.token.bytes) for one in read.loss.tokens) if read.loss is not None else 0
    ids = model.ids(request)
    made = continuation(model, ids, request.sampler, seed=question.seed, count=question.tokens, overtaken=overtaken)
    compared = ComparedModel(read, size, tuple(made))
    model.feed(ids, overtaken)  # the window again holds the text
    return compared


# ── the next token ──


def _same_vocabulary(first: OpenModel, second: OpenModel) -> bool:
    one, two = first.tokenizer, second.tokenizer
    return one.size == two.size and all(first.bytes_of(id) == second.bytes_of(id) for id in range(one.size))


def _next_token(
    models: Sequence[OpenModel], rows: int
) -> tuple[tuple[Divergence, ...], tuple[SharedCandidate, ...], tuple[SharedCandidate, ...]]:
    """The divergences, the likeliest tokens and those that differ most, as `ModelComparison` has them."""
    same = {pair: _same_vocabulary(models[pair[0]], models[pair[1]]) for pair in combinations(range(len(models)), 2)}
    first = next((one for (one, _), shared in same.items() if shared), None)
    if first is None:
        return (), (), ()
    logs = [log_softmax(model.window.logits()) for model in models]
    made = tuple(_divergence(one, two, logs) for (one, two), shared in same.items() if shared)
    members = [at for at in range(len(models)) if at == first or same.get((first, at), False)]
    p = np.exp(np.stack([logs[at] for at in members]))

    def rows_of(ids: Sequence[int]) -> tuple[SharedCandidate, ...]:
        found = []
        for id in ids:
            known = dict(zip(members, p[:, id].tolist(), strict=True))
            values = tuple(known.get(at) for at in range(len(models)))
            found.append(SharedCandidate(id, models[first].token(id).text, values))
        return tuple(found)

    largest = p.max(axis=0)
    tops = {id for each in p for id in np.argsort(-each, stable=True)[:rows].tolist()}
    likeliest = np.argsort(-p.sum(axis=0), stable=True)  # first where the differences are equal
    apart = largest - p.min(axis=0)
    most = likeliest[np.argsort(-apart[likeliest], stable=True)][:rows].tolist()
    return made, rows_of(sorted(tops, key=lambda id: (-largest[id], id))), rows_of(most)


def _divergence(first: int, second: int, logs: Sequence[Array]) -> Divergence:
    log_p, log_q = logs[first], logs[second]
    apart = np.abs(np.exp(log_p) - np.exp(log_q))
    return Divergence(first, second, _kl(log_p, log_q), _kl(log_q, log_p), float(apart.sum()) / 2)


def _kl(log_p: Array, log_q: Array) -> float:
    """Σ p · log₂(p ÷ q), of float64 ln p and ln q (V,). A token with p = 0 adds nothing."""
    possible = ~np.isneginf(log_p)
    log_p, log_q = log_p[possible], log_q[possible]
    return max(0.0, bits(float((np.exp(log_p) * (log_p - log_q)).sum())))  # rounding can give −1e-17


# ── the text ──


def _ends(read: Reading, fed: bytes) -> tuple[bytes, list[tuple[int, float | None]]]:
    """The text, and for each token where it ends in the text and its loss in bits. A start token is no text; nor is a
    space that is not in `fed`, the text that was encoded: some vocabularies put one in front."""
    rows = list(zip(read.tokens.tokens, read.scores, strict=True))
    if read.request.start_token:
        start, rows = rows[0][0], rows[1:]
        if read.request.chat:
            fed = fed.removeprefix(start.bytes)  # a template's own start token is not put in front twice
    text, ends = b"", []
    for token, score in rows:
        own = token.bytes
        if own[:1] == b" " and not fed.startswith(own, len(text)) and fed.startswith(own[1:], len(text)):
            own = own[1:]
        text += own
        ends.append((len(text), None if score is None else bits(score.surprisal)))
    return text, ends


def _pieces(readings: Sequence[Reading], fed: Sequence[bytes]) -> Iterator[TextPiece]:
    """The pieces for which all models have a loss, in order; `fed`: the text that each model's tokens encode. Raises
    ValueError if the tokens' texts differ."""
    sides = list(map(_ends, readings, fed))
    text = sides[0][0]
    if any(other != text for other, _ in sides):
        raise ValueError
    begin, places = 0, [0] * len(sides)
    for end in sorted(set.intersection(*({end for end, _ in ends} for _, ends in sides))):
        if end == begin:
            continue  # tokens without bytes, at the text's start: part of the first piece
        sums = []
        for at, (_, ends) in enumerate(sides):
            costs = []
            while places[at] < len(ends) and ends[places[at]][0] <= end:
                costs.append(ends[places[at]][1])
                places[at] += 1
            sums.append(_sum(costs))
        known = tuple(one for one in sums if one is not None)
        if len(known) == len(sums):
            yield TextPiece(token_text(text[begin:end]), end - begin, known)
        begin = end


def _sum(costs: list[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return math.fsum(known) if len(known) == len(costs) else None
