"""Replace one token of the text.

The text before it stays text up to the last place where it still encodes to the same ids. All tokens after that place
are kept as ids.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from tui_llm.common.errors import UserError
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Request
from tui_llm.instruments.answers import answers
from tui_llm.instruments.swap.question import PlaceQuestion, Swapped, SwapQuestion
from tui_llm.llm.tokens.token_bytes import TextStream
from tui_llm.session import reading
from tui_llm.session.open_model import OpenModel

_TRIES = 64  # positions to try before the requested one


@answers(PlaceQuestion)
def place(open_model: OpenModel, question: PlaceQuestion, overtaken: Callable[[], bool]) -> Reading:
    request = dataclasses.replace(question.request, target=None, tokenizer=None, scores=False)
    return reading.read(open_model, request, overtaken)


@answers(SwapQuestion)
def swap(open_model: OpenModel, question: SwapQuestion, overtaken: Callable[[], bool]) -> Swapped:
    """Raises `UserError` if the position is at no token of the text, or the replacement is invalid."""
    request, ids = question.request, open_model.ids(question.request)
    first, at = int(request.start_token), request.position
    if at is None or not first <= at < len(ids):
        raise UserError("no token is selected: put the token cursor on one, with , and .")
    new = _replacement(open_model, question)
    generated = len(ids) - len(request.continuation)  # index of the first generated token
    if not request.chat:
        prompt, typed = _typed(open_model, request, ids, first, min(at, generated))
    elif at >= generated:
        prompt, typed = request.prompt, generated
    else:
        raise UserError("this token belongs to the chat template: switch to plain text (J), then swap it")
    after = ids[at + 1 :]
    given = [*ids[typed:at], *new, *(after if question.keep else [])]
    steps = _steps(open_model, request, prompt, given, overtaken)
    return Swapped(prompt, steps, 0 if question.keep else len(after), at)


def _replacement(open_model: OpenModel, question: SwapQuestion) -> list[int]:
    if question.id is not None:
        if not 0 <= question.id < open_model.tokenizer.size:
            raise UserError(f"there is no token {question.id}; ids go from 0 to {open_model.tokenizer.size - 1}")
        return [question.id]
    new = open_model.tokenizer.encode_after(question.text or "", allow_special=question.request.allow_special)
    if not new:
        raise UserError("type the replacement with its leading space, as in ' dog'")
    return new


def _typed(open_model: OpenModel, request: Request, ids: list[int], first: int, end: int) -> tuple[str, int]:
    """The longest text that encodes to the ids from `first` to at most `end`, and the index where it ends. A text that
    is cut inside a word often encodes to other ids there, so its end may be before `end`."""
    for stop in range(end, max(first, end - _TRIES), -1):
        before = ids[first:stop]
        try:
            text = open_model.tokenizer.decode_bytes(before).decode()
        except (UnicodeDecodeError, KeyError):
            continue
        for typed in (text, text.removeprefix(" ")):  # some vocabularies prepend a space to a text's first word
            if open_model.tokenizer.encode(typed, allow_special=request.allow_special) == before:
                return typed, stop
    return "", first


def _steps(
    open_model: OpenModel, request: Request, prompt: str, given: list[int], overtaken: Callable[[], bool]
) -> tuple[GeneratedToken, ...]:
    """`given` as generated tokens after `prompt`, each with the model's probability and without a draw."""
    read = reading.read(
        open_model,
        dataclasses.replace(request, prompt=prompt, continuation=tuple(given), position=None, target=None, tokenizer=None,
                            top=1, token_window=len(given), scores=True),
        overtaken,
    )  # fmt: skip
    if read.problem and not read.scores:
        raise UserError(read.problem)
    stream, steps = TextStream(), []
    ids, first = read.prompt_ids, len(read.prompt_ids) - len(given)
    for index, (id, score) in enumerate(zip(given, read.scores, strict=True), first):
        token = open_model.token(id, ids[index - 1] if index else None)
        p, rank = (score.probability, score.rank) if score is not None else (math.nan, 0)
        steps.append(GeneratedToken(index - first, id, token.bytes, stream.feed(token.bytes), None, p, p, rank, (),
                                    interventions=request.interventions))  # fmt: skip
    return tuple(steps)
