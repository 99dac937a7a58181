"""The two answers of Prefer: drawn from the copy of the weights, or typed."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Any

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.prefer.question import MOST_ANSWER_TOKENS, AnswersQuestion, PreferredAnswer, TwoAnswers
from tui_llm.llm.learn.preference import encoded
from tui_llm.llm.learn.preference_learner import PreferenceLearner
from tui_llm.llm.model import fast_decode
from tui_llm.llm.model.model import GPT
from tui_llm.llm.predict.generate import generate
from tui_llm.llm.predict.window import Window
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.session.messages import NOTHING
from tui_llm.session.open_model import OpenModel

TEXT_SHOWN = 400  # tokens at the prompt's end


def two_answers(
    open_model: OpenModel, question: AnswersQuestion, learner: PreferenceLearner, overtaken: Callable[[], bool]
) -> TwoAnswers:
    """Raises `UserError` if there is no prompt, an answer is empty or longer than the context, or the numbers are not
    finite; `Overtaken`."""
    if not 1 <= question.count <= MOST_ANSWER_TOKENS:
        raise UserError(f"{question.count} tokens an answer; give 1 to {MOST_ANSWER_TOKENS}")
    prompt = open_model.ids(question.request)
    if not prompt:
        raise UserError(NOTHING)
    context = learner.origin.config.context
    count = min(question.count, context)
    found: list[list[int]] = []
    for seed, text in zip(question.seeds, question.texts, strict=True):
        if text is not None:
            found.append(open_model.tokenizer.encode_after(text, allow_special=question.request.allow_special))
        else:
            fed = prompt[-(context + 1 - count) :]  # as the loss reads the pair
            found.append(drawn(open_model, learner.model, fed, question.request.sampler, seed, count, overtaken))
    pair = encoded(prompt, found[0], found[1], context, distinct=False)
    sides = zip(found, learner.read(pair), question.seeds, question.texts, strict=True)
    left, right = (_answer(open_model, prompt, *side) for side in sides)
    shown = token_text(b"".join(open_model.token(id).bytes for id in prompt[-TEXT_SHOWN:]))
    return TwoAnswers(question, open_model.weights(), tuple(prompt), shown, left, right)


def _answer(
    open_model: OpenModel,
    prompt: Sequence[int],
    ids: Sequence[int],
    logs: tuple[float, ...],
    seed: int,
    text: str | None,
) -> PreferredAnswer:
    before = [prompt[-1], *ids]
    tokens = tuple(open_model.token(id, previous) for id, previous in zip(ids, before, strict=False))
    return PreferredAnswer(tokens, logs, seed if text is None else None, open_model.tokenizer.ends(ids[-1]))


def drawn(
    open_model: OpenModel,
    model: GPT,
    prompt: Sequence[int],
    sampler: SamplerSettings,
    seed: int,
    count: int,
    overtaken: Callable[[], bool],
) -> list[int]:
    """Up to `count` ids after `prompt`, up to an end-of-text token. Tokens at the end that begin a character without
    ending it are dropped, as long as something remains."""
    window = Window(fast_decode.predictor(model), open_model.tokenizer.size)

    def next_logits(ids: list[int]) -> Any:
        window.feed(ids[-window.context :], overtaken)
        return window.logits()

    ids: list[int] = []
    for token in generate(
        next_logits,
        prompt,
        sampler,
        seed=seed,
        count=count,
        stop=overtaken,
        bytes_of=open_model.bytes_of,
        bytes_after=open_model.bytes_after,
        ends=open_model.tokenizer.ends,
    ):
        ids.append(token.id)
        if token.ends:
            return ids
    if overtaken():
        raise Overtaken
    return _whole(open_model, prompt, ids) or ids


def _whole(open_model: OpenModel, prompt: Sequence[int], ids: list[int]) -> list[int]:
    """`ids` without the last tokens that leave a character incomplete."""
    while ids:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(open_model.tokenizer.decode_bytes([*prompt, *ids]))
        if not decoder.getstate()[0]:
            return ids
        ids = ids[:-1]
    return ids
