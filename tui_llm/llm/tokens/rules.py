"""What a tokenizer's files say beside vocabulary and merges."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tui_llm.llm.tokens.added_tokens import AddedToken, AddedTokens
from tui_llm.llm.tokens.pre_tokenizer import PreTokenizer


@dataclass(frozen=True, slots=True)
class Rules:
    """Added tokens, pre-tokenizer and special tokens of a byte-level BPE.

    texts: the bytes of ids that no merge makes, such as those of added tokens.
    begin: the start token (BOS); begins: whether texts began with it; ends: the tokens that end a text (EOS).
    post_processor: that of `tokenizer.json`. special: name (`bos_token`) → text.
    """

    added: AddedTokens
    pre_tokenizer: PreTokenizer
    raw_pre_tokenizer: dict[str, Any]
    texts: dict[int, bytes]
    begin: int | None = None
    begins: bool = False
    ends: frozenset[int] = frozenset()
    post_processor: dict[str, Any] | None = None
    special: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Differs between rules that give other ids."""
        return json.dumps([[token.entry() for token in self.added.tokens], self.raw_pre_tokenizer], sort_keys=True)

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(token.id for token in self.added.tokens if token.special)

    def parts(self, text: str, allow_special: bool, prefix: bool = True) -> list[str | AddedToken]:
        """`text` as added tokens, and parts for tiktoken to encode. `prefix`: whether `add_prefix_space` applies."""
        parts: list[str | AddedToken] = []
        for part in self.added.split(text, allow_special):
            parts += self.pre_tokenizer.parts(part, prefix) if isinstance(part, str) else [part]
        return parts
