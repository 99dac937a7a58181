"""A closed vocabulary: the characters or the words of the text that a model is trained on, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tui_llm.common.errors import UserError
from tui_llm.llm.tokens import closed_files, words
from tui_llm.llm.tokens.text import END_OF_TEXT, clean
from tui_llm.llm.tokens.tokenizer import Tokenizer


class ClosedTokenizer(Tokenizer):
    """Each character (`kind` is `char`) or word, number, sign and run of white space (`word`) is a token.

    tokens: by id. `<|endoftext|>`, if it is the last of them, is the special token. A text with anything else can't be
    encoded: `UserError`.
    """

    def __init__(self, name: str, kind: str, tokens: list[str]) -> None:
        self.name, self.kind, self.tokens = name, kind, tokens
        self.size = len(tokens)
        self.end_of_text = self.size - 1 if tokens and tokens[-1] == END_OF_TEXT else None
        self._ids = {token: id for id, token in enumerate(tokens) if id != self.end_of_text}
        self._table: npt.NDArray[np.int64] | None = None  # code point → id, −1: none
        if kind == "char":
            points = np.array(list(map(ord, self._ids)), np.int64)
            self._table = np.full(int(points.max(initial=0)) + 2, -1, np.int64)
            self._table[points] = list(self._ids.values())

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        if allow_special and self.end_of_text is not None:
            first, *others = text.split(END_OF_TEXT)
            return [*self._plain(first), *(id for part in others for id in (self.end_of_text, *self._plain(part)))]
        return self._plain(text)

    def _plain(self, text: str) -> list[int]:
        try:
            return [self._ids[piece] for piece in self._pieces(text)]
        except KeyError as error:
            raise self._unknown(str(error.args[0])) from None

    def encode_known(self, text: str) -> list[int]:
        return [self._ids[piece] for piece in self._pieces(text) if piece in self._ids]

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        if self._table is None:
            return np.array(self._plain(text), np.uint32)
        points = np.frombuffer(clean(text).encode("utf-32-le"), np.uint32)
        ids = self._table[np.minimum(points, len(self._table) - 1)]
        if (ids < 0).any():
            raise self._unknown(chr(points[ids < 0][0]))
        return ids.astype(np.uint32)

    def _pieces(self, text: str) -> list[str]:
        return list(clean(text)) if self.kind == "char" else words.split(text)

    def _unknown(self, piece: str) -> UserError:
        what = "character" if self.kind == "char" else "word"
        return UserError(
            f"the vocabulary of {self.name} has no {what} {piece[:40]!r}, only the {len(self._ids):,} of its training text; leave it out"
        )

    def token_bytes(self, id: int) -> bytes:
        if not 0 <= id < self.size:
            raise KeyError(id)
        return self.tokens[id].encode()

    def save(self, folder: Path) -> None:
        closed_files.save(self.kind, self.tokens, self.end_of_text, folder)


def load(folder: Path, name: str | None = None) -> ClosedTokenizer | None:
    """The closed vocabulary in a folder; None if it has another, or none. Raises `UserError` if it is damaged."""
    kind = closed_files.kind_of(folder)
    return ClosedTokenizer(name or folder.name, kind, closed_files.read(folder, kind)) if kind else None
