"""Split text into words, numbers, signs and runs of white space. No tiktoken here."""

from __future__ import annotations

from tui_llm.llm.tokens.text import clean

PATTERN = r"\p{L}[\p{L}\p{M}'’]*|\p{N}+|\s+|\X"


def split(text: str) -> list[str]:
    """The pieces of `text`; together they are the text."""
    import regex  # not for the pattern alone, which the app reads before its first paint

    return regex.findall(PATTERN, clean(text))


def only_words(text: str) -> list[str]:
    """The words and numbers of `text`, without white space and signs."""
    return [word for word in split(text) if word[0].isalnum()]
