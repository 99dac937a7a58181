"""A vocabulary of characters, as nanoGPT's shakespeare_char has: `vocab.json`, each single character with its id."""

from __future__ import annotations

from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.llm.tokens.text import clean
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.llm.tokens.vocab_json import read_vocab

FILE = "vocab.json"


class CharacterVocabulary(Tokenizer):
    """Each of the given characters is a token; a text with any other character can't be encoded. Ids without a
    character are gaps."""

    def __init__(self, name: str, ids: dict[str, int]) -> None:
        self.name, self._ids = name, ids
        self._characters = {id: character for character, id in ids.items()}
        self.size = max(self._characters) + 1

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        text = clean(text)
        if unknown := next((character for character in text if character not in self._ids), None):
            raise UserError(
                f"the vocabulary of {self.name} has no {unknown!r}: it knows {len(self._ids)} characters only; leave it out"
            )
        return [self._ids[character] for character in text]

    def token_bytes(self, id: int) -> bytes:
        return self._characters[id].encode("utf-8", "replace")


def load(folder: Path, name: str) -> CharacterVocabulary:
    """The vocabulary in a folder's `vocab.json`. Raises `UserError` if a token in it is longer than a character."""
    ids = read_vocab(folder / FILE)
    if longer := next((token for token in ids if len(token) != 1), None):
        raise UserError(
            f"{folder / FILE} has {longer[:40]!r}, which is not one character: a vocabulary of longer tokens needs merges.txt too"
        )
    return CharacterVocabulary(name, ids)
