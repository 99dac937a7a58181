"""The next tokens of an answer in a conversation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tui_llm.facts.chat import ChatMessage
from tui_llm.facts.model import Weights
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.request import Question


@dataclass(frozen=True, slots=True)
class ChatQuestion(Question["ChatPart"]):
    """Draw `count` more tokens of the answer to `messages`, with the request's sampler. A long answer is asked for in
    parts, so that it is shown as it is drawn; parts do not change what is drawn.

    answer: the ids of the answer so far.
    """

    messages: tuple[ChatMessage, ...] = ()
    answer: tuple[int, ...] = ()
    seed: int = 1
    count: int = 1


@dataclass(frozen=True, slots=True)
class ChatPart:
    """fed_text: the conversation as the model's template writes it, up to where the answer begins; its ids are
    `fed_ids`. forgotten: how many ids at the start are outside the context. tokens: the new ones. ended: the last of
    them ends the answer. typed_special: special tokens whose text occurs in messages: fed as plain text. Foreign."""

    weights: Weights
    fed_text: str
    fed_ids: tuple[int, ...]
    forgotten: int
    tokens: tuple[GeneratedToken, ...]
    ended: bool
    typed_special: tuple[str, ...] = ()

    @property
    def plain_words(self) -> str:
        """The line about special tokens that occur in messages as text; empty if there are none. Foreign."""
        texts = self.typed_special
        if not texts:
            return ""
        many = ("are", "special tokens") if len(texts) > 1 else ("is", "the special token")
        return f"{', '.join(texts)} in a message {many[0]} fed as plain text, not as {many[1]}"


def log_p(token: GeneratedToken) -> float:
    """ln of the raw probability, in nats; −inf if that is 0 in a float."""
    return math.log(token.raw_probability) if token.raw_probability > 0 else -math.inf


def text_of(tokens: tuple[GeneratedToken, ...]) -> str:
    """The answer as text, without the token that ends it. Foreign."""
    data = b"".join(token.bytes for token in tokens if not token.ends)
    return data.decode("utf-8", "replace")
