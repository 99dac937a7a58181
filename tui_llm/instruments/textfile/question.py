"""A text file as training data: its number of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tui_llm.facts.request import Question


@dataclass(frozen=True, slots=True)
class TextFileQuestion(Question["TextFile"]):
    """The file at `path`, tokenized with the open model's vocabulary."""

    uses_parts: ClassVar[bool] = False
    path: str = ""


@dataclass(frozen=True, slots=True)
class TextFile:
    """n `tokens` make n − 1 pairs of input and target."""

    path: str
    bytes: int
    tokens: int
    tokenizer: str

    @property
    def pairs(self) -> int:
        return max(0, self.tokens - 1)
