"""Where in a text an instrument stands: at which of its tokens."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.tokens import Token


@dataclass(frozen=True, slots=True)
class Place:
    """`tokens` are the ones that the model was fed: the text's last ones, where it is longer than the context. The first
    of them is token number `first` (from 0) of `count`; `number` is the token that the answer is about."""

    tokens: tuple[Token, ...]
    first: int
    count: int
    number: int

    @property
    def index(self) -> int:
        """Where `number` is among `tokens`."""
        return self.number - self.first

    @property
    def token(self) -> Token:
        return self.tokens[self.index]
