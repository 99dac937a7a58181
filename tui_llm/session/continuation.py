"""Tokens that the open model draws after a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.predict.generate import generate
from tui_llm.llm.predict.softmax import Array
from tui_llm.session.open_model import OpenModel


def continuation(
    open_model: OpenModel,
    ids: Sequence[int],
    sampler: SamplerSettings,
    *,
    seed: int,
    count: int,
    overtaken: Callable[[], bool],
    drawn: Sequence[int] = (),
) -> Iterator[GeneratedToken]:
    """Up to `count` tokens after `ids`, an end-of-text token the last. The last ones of `ids` may have been `drawn` before:
    the numbers, and a character that is incomplete, go on there. Raises `Overtaken`."""

    def next_logits(so_far: list[int]) -> Array:
        open_model.feed(so_far, overtaken)
        return open_model.window.logits()

    made = generate(
        next_logits,
        ids,
        sampler,
        seed=seed,
        start=len(drawn),
        count=count,
        bytes_of=open_model.bytes_of,
        bytes_after=open_model.bytes_after,
        before=b"".join(map(open_model.bytes_of, drawn)),
        ends=open_model.tokenizer.ends,
    )
    for token in made:
        yield token
        if token.ends:
            return
