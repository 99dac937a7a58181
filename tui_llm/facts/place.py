"""A token position in a text."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.tokens import Token


@dataclass(frozen=True, slots=True)
class Place:
    """A token position, and the tokens that were fed to the model.

    tokens: the fed tokens; if the text is longer than the context, its last ones. tokens[0] is token number `first`
        (from 0) of the `count` tokens of the text.
    number: the number of the token that the answer is about.
    """

    tokens: tuple[Token, ...]
    first: int
    count: int
    number: int

    @property
    def index(self) -> int:
        """The index of token `number` in `tokens`."""
        return self.number - self.first

    @property
    def token(self) -> Token:
        return self.tokens[self.index]
