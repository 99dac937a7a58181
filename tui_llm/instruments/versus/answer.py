"""Read one text with two models, and compare the predictions and the losses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.answers import answers
from tui_llm.instruments.versus.question import (
    Disagreement,
    Divergence,
    TextPiece,
    Versus,
    VersusQuestion,
    VersusSide,
)
from tui_llm.llm.predict.distribution import Array, log_softmax
from tui_llm.llm.predict.generate import generate
from tui_llm.llm.predict.units import bits
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.session import reading
from tui_llm.session.open_model import OpenModel

_ALL = 1 << 30
DIFFERENT_TEXT = "the two vocabularies don't give the same text back, so it can't be compared piece by piece"
NOTHING_SHARED = (
    "there is no piece for which both models have a loss: type more text, or put a start token in front of it"
)


@answers(VersusQuestion)
def answer(open_model: OpenModel, question: VersusQuestion, overtaken: Callable[[], bool]) -> Versus:
    """Raises `UserError` if the other model can't be opened or either can't read the text, and `Overtaken`.

    At most two models are in memory: the other one stays until its screen closes or another one is asked for.
    """
    request = _as_text(open_model, question.request)
    other = _other(open_model, question.other)
    if overtaken():
        raise Overtaken
    first, second = (_side(model, request, question, overtaken) for model in (open_model, other))
    problem, pieces = "", []
    try:
        pieces = list(_pieces(first.reading, second.reading))
    except ValueError:
        problem = DIFFERENT_TEXT
    if not pieces and not problem:
        problem = NOTHING_SHARED
    # A difference of two infinities is no number: such pieces agree
    apart = sorted(pieces, key=lambda piece: -abs(piece.first - piece.second) if piece.first != piece.second else 0.0)
    return Versus(
        first,
        second,
        _divergence(open_model, other, question.rows),
        sum(piece.bytes for piece in pieces),
        math.fsum(piece.first for piece in pieces),
        math.fsum(piece.second for piece in pieces),
        tuple(apart[: question.rows]),
        problem,
    )


def _as_text(model: OpenModel, request: Request) -> Request:
    """The request without token ids, which mean other tokens to another model."""
    ids = model.ids(request)
    own, count = model.tokenizer, len(request.continuation)
    before = ids[: len(ids) - count]
    prompt = request.prompt + own.decode(request.continuation, before[-1] if before else None)
    target = request.target
    if target is not None and target.own:
        target = None  # it is in the text, whose pieces are compared
    elif target is not None and target.id is not None:
        target = Target(text=model.token(target.id).text)
    return dataclasses.replace(
        request, prompt=prompt, continuation=(), target=target, position=None, tokenizer=None, overrides=()
    )


def _other(open_model: OpenModel, name: str) -> OpenModel:
    """The other model, opened on the same device and in the same dtype. Raises `UserError`."""
    cache, key = open_model.screen_cache, "versus"
    known = cache.get(key)
    if known is None or known[0] != name:
        cache.pop(key, None)  # freed before another one is read
        made = OpenModel(str(open_model.device), open_model.dtype)
        made.open(name)
        known = cache[key] = name, made
    else:
        known[1].refresh()  # a run may have a newer checkpoint
    other: OpenModel = known[1]
    return other


def _side(model: OpenModel, request: Request, question: VersusQuestion, overtaken: Callable[[], bool]) -> VersusSide:
    asked = dataclasses.replace(request, scores=True, token_window=_ALL, top=question.rows)
    read = reading.read(model, asked, overtaken)
    problem = read.problem or (read.loss.problem if read.loss is not None else None)
    if problem:
        raise UserError(f"{read.weights.name}: {problem}")
    size = sum(len(one.token.bytes) for one in read.loss.tokens) if read.loss is not None else 0
    return VersusSide(read, size, tuple(_continuation(model, request, question, overtaken)))


def _continuation(
    model: OpenModel, request: Request, question: VersusQuestion, overtaken: Callable[[], bool]
) -> Iterator[GeneratedToken]:
    ids = model.ids(request)

    def next_logits(so_far: list[int]) -> Array:
        model.feed(so_far, overtaken)
        return model.window.logits()

    made = generate(
        next_logits,
        ids,
        request.sampler,
        seed=question.seed,
        count=question.tokens,
        bytes_of=model.bytes_of,
        bytes_after=model.bytes_after,
        ends=model.tokenizer.ends,
    )
    for token in made:
        yield token
        if token.ends:
            break
    model.feed(ids, overtaken)  # the window again holds the text


# ── the next token ──


def _same_vocabulary(first: OpenModel, second: OpenModel) -> bool:
    one, two = first.tokenizer, second.tokenizer
    return one.size == two.size and all(first.bytes_of(id) == second.bytes_of(id) for id in range(one.size))


def _divergence(first: OpenModel, second: OpenModel, rows: int) -> Divergence | None:
    if not _same_vocabulary(first, second):
        return None
    log_p, log_q = (log_softmax(model.window.logits()).astype(np.float64) for model in (first, second))
    p, q = np.exp(log_p), np.exp(log_q)
    apart = np.abs(p - q)
    likeliest = np.argsort(-(p + q), stable=True)  # first where the differences are equal
    most = likeliest[np.argsort(-apart[likeliest], stable=True)][:rows].tolist()
    listed = (Disagreement(id, first.token(id).text, float(p[id]), float(q[id])) for id in most)
    return Divergence(_kl(log_p, log_q), _kl(log_q, log_p), float(apart.sum()) / 2, tuple(listed))


def _kl(log_p: Array, log_q: Array) -> float:
    """Σ p · log₂(p ÷ q), of float64 ln p and ln q (V,). A token with p = 0 adds nothing."""
    possible = ~np.isneginf(log_p)
    log_p, log_q = log_p[possible], log_q[possible]
    return max(0.0, bits(float((np.exp(log_p) * (log_p - log_q)).sum())))  # rounding can give −1e-17


# ── the text ──


def _ends(read: Reading) -> tuple[bytes, list[tuple[int, float | None]]]:
    """The text, and for each token where it ends in the text and its loss in bits. A start token is no text."""
    skipped = int(read.request.start_token)
    text, ends = b"", []
    for token, score in list(zip(read.tokens.tokens, read.scores, strict=True))[skipped:]:
        text += token.bytes
        ends.append((len(text), None if score is None else bits(score.surprisal)))
    return text, ends


def _pieces(first: Reading, second: Reading) -> Iterator[TextPiece]:
    """The pieces for which both models have a loss, in order. Raises ValueError if the texts differ."""
    text, one = _ends(first)
    other, two = _ends(second)
    if text != other:
        raise ValueError
    begin = at = place = 0
    while at < len(one) and place < len(two):
        costs: tuple[list[float | None], list[float | None]] = [], []
        end, far = begin, begin
        while True:  # the side that is behind takes its next token
            if end <= far and at < len(one):
                end, cost = one[at]
                at += 1
                costs[0].append(cost)
            else:
                far, cost = two[place]
                place += 1
                costs[1].append(cost)
            if end == far and all(costs):
                break
        sums = [_sum(side) for side in costs]
        if sums[0] is not None and sums[1] is not None:
            yield TextPiece(token_text(text[begin:end]), end - begin, sums[0], sums[1])
        begin = end


def _sum(costs: list[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return math.fsum(known) if len(known) == len(costs) else None
