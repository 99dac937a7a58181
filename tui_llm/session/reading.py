"""The reading of a request: everything that the five panes show for it, from one forward pass where possible."""

from __future__ import annotations

import time
from collections.abc import Callable

from tui_llm.common.errors import UserError
from tui_llm.facts.prediction import LossReading, TargetToken, TokenScore
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Request
from tui_llm.facts.tokens import Tokenization
from tui_llm.llm.predict import distribution, loss
from tui_llm.llm.predict.units import uniform_loss
from tui_llm.llm.tokens import catalog
from tui_llm.session.caches import keep, place_of
from tui_llm.session.messages import LONG_TARGET, NOTHING
from tui_llm.session.open_model import OpenModel, never
from tui_llm.session.tokenization import span, tokenization

BEYOND = 1024  # most tokens of a target that the window slides for: a forward pass each


def read(model: OpenModel, request: Request, overtaken: Callable[[], bool] = never) -> Reading:
    """Compute the reading of `request`. Raises `Overtaken` as soon as `overtaken()` returns true."""
    began = time.perf_counter()
    model.intervene(request.interventions)
    ids = model.ids(request)
    tokens = _tokens(model, request, ids)
    fed = min(len(ids), model.window.context)
    position = place_of(request, ids)
    forward_tokens, shown, target_loss, problem, followed = 0, None, None, None, None
    scores: tuple[TokenScore | None, ...] = ()
    try:
        if ids:
            forward_tokens = model.feed(ids, overtaken)
            if request.scores:
                scores = _scores(model, ids, request.token_window, overtaken)
            shown = model.prediction_at(request, ids, position).distribution(
                request.top, model.bytes_after(ids[:position])
            )
            before = position - (len(ids) - fed)  # number of tokens in the window before the prediction
            target_loss = _loss(model, request, ids[position:], before, overtaken)
            if position < len(ids):
                (one,) = model.target_losses([ids[position]], before, overtaken)
                entropy = model.window.sorted(before).entropy  # without the user's overrides of logits
                followed = TokenScore(one, entropy)
        else:
            problem = NOTHING
    except UserError as error:
        problem = str(error)
    typed = None
    if not request.chat:
        generated = len(request.continuation)
        typed = span(model.tokenizer, ids, position, int(request.start_token), generated, request.prompt)
    return Reading(
        request=request,
        weights=model.weights(),
        tokens=tokens,
        prompt_ids=tuple(ids),
        fed=fed,
        distribution=shown,
        loss=target_loss,
        problem=problem,
        position=position,
        following=model.token(ids[position]) if position < len(ids) else None,
        scores=scores,
        milliseconds=(time.perf_counter() - began) * 1000,
        forward_tokens=forward_tokens,
        following_score=followed,
        span=typed,
    )


def _tokens(model: OpenModel, request: Request, ids: list[int]) -> Tokenization:
    """The tokens in the request's vocabulary, which is the model's if the request names none."""
    own = model.tokenizer
    if request.tokenizer is None:
        key = tuple(ids), request.token_window, len(request.continuation)
        known = model.tokenizations
        if key not in known:
            keep(known, key, tokenization(own, ids, request.token_window, len(request.continuation)), most=1)
        return known[key]
    try:
        other = catalog.load_named(request.tokenizer)
    except UserError as error:
        return Tokenization(request.tokenizer, 0, 0, 0, (), (), 0, str(error))
    typed = other.encode(model.fed_text(request), allow_special=request.allow_special)
    count = len(request.continuation)
    previous = ids[-count - 1] if len(ids) > count else None
    generated = other.encode(own.decode(request.continuation, previous)) if count else []
    return tokenization(other, typed + generated, request.token_window, len(generated))


def _scores(
    model: OpenModel, ids: list[int], count: int, overtaken: Callable[[], bool]
) -> tuple[TokenScore | None, ...]:
    """The scores of the last `count` ids; None for ids that no prediction in the window precedes."""
    scores = model.window.scores(overtaken)
    unpredicted: list[TokenScore | None] = [None] * (len(ids) - len(scores))
    return tuple((unpredicted + scores)[-count:])


def _loss(
    model: OpenModel, request: Request, following: list[int], position: int, overtaken: Callable[[], bool]
) -> LossReading | None:
    """The loss of the request's target after `position`. `following` are the text's ids from there on."""
    target = request.target
    if target is None:
        return None
    uniform = uniform_loss(model.tokenizer.size)
    try:
        wanted = model.target_ids(target, request, following, overtaken)
        context = model.window.context
        if (beyond := position + len(wanted) - 1 - context) > BEYOND:
            raise UserError(LONG_TARGET.format(len(wanted), beyond, context, BEYOND))
        losses = model.target_losses(wanted, position, overtaken)
        if request.overrides:  # overrides apply to the first token's prediction
            changed = distribution.change(model.window.logits(position), request.overrides)
            losses = [*loss.token_losses(changed[None], wanted[:1]), *losses[1:]]
    except UserError as error:
        return LossReading(target.text or "", (), 0.0, 0.0, 0.0, 1.0, uniform, str(error))
    tokens = [TargetToken(model.token(one.id), one) for one in losses]
    text = tokens[0].token.text if target.text is None else target.text
    return loss.loss_reading(text, tokens, model.tokenizer.size)
