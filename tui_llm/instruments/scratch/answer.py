"""Softmax of typed tokens and logits, without any model. `tui-llm softmax` calls it too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tui_llm.common.errors import UserError
from tui_llm.facts.tokens import Token
from tui_llm.instruments.answers import answers
from tui_llm.instruments.scratch.question import Scratch, ScratchQuestion, parse
from tui_llm.instruments.temperatures.answer import temperatures
from tui_llm.llm.predict.distribution import Sorted

if TYPE_CHECKING:
    from tui_llm.session.open_model import OpenModel


@answers(ScratchQuestion)
def answer(open_model: OpenModel, question: ScratchQuestion, overtaken: Callable[[], bool]) -> Scratch:
    return scratch(question)


def scratch(question: ScratchQuestion) -> Scratch:
    """A token's id is its index among the words. Raises `UserError` on invalid words, or if the softmax is
    undefined."""
    typed = parse(question.words)
    unknown = [name for name in question.seen if name not in dict(typed)]
    if unknown:
        raise UserError(f"{unknown[0]!r} is none of the tokens; seen tokens are for the repetition penalty")
    logits = Sorted.of(
        [value for _, value in typed],
        "the logits",
        "give finite numbers, or -inf for an impossible token",
        seen=[at for at, (name, _) in enumerate(typed) if name in question.seen],
        penalty=question.sampler.repetition_penalty,
    )

    def token(id: int) -> Token:
        return Token(id, typed[id][0].encode(errors="replace"), typed[id][0])

    distribution = logits.process(question.sampler).distribution(len(typed), lambda id: token(id).bytes)
    asked = question.temperatures
    return Scratch(distribution, temperatures(logits, asked, len(typed), token) if asked else None)
