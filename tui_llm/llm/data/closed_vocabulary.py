"""Make a vocabulary of the characters or words of a corpus. No tokenizer here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.llm.data import chunks, corpora, texts
from tui_llm.llm.data.formats import AUTO, TextFormat
from tui_llm.llm.tokens import words
from tui_llm.llm.tokens.closed_files import MOST
from tui_llm.llm.tokens.text import END_OF_TEXT, clean


def tokens(
    places: Sequence[str | Path],
    kind: str,
    how: TextFormat = AUTO,
    progress: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """The tokens by id: all characters, sorted by code point (as nanoGPT's), or all words, in order of appearance.

    Then `<|endoftext|>`, if there is more than one document. Raises `UserError` if the corpus is empty, can't be read, or
    has more than `MOST` different tokens.
    """
    found: dict[str, None] = {}
    documents = 0
    for path in corpora.files(places, progress):
        for chunk in chunks.split(texts.blocks(path, how=how)):
            if chunk is None:
                documents += 1
                progress(f"collecting the {kind}s of the text: {len(found):,}")
                continue
            found.update(dict.fromkeys(set(clean(chunk)) if kind == "char" else words.split(chunk)))
            if len(found) > MOST:
                raise UserError(
                    f"the text has more than {MOST:,} different {kind}s, too many for a vocabulary of them; give --tokenizer gpt2, or "
                    "learn one: tui-llm vocabulary train"
                )
    if not found:
        raise UserError(
            f"the corpus is empty: there is no text in {', '.join(map(str, places[:3]))}; give another file"
        )
    made = sorted(found) if kind == "char" else list(found)
    return [*made, END_OF_TEXT] if documents > 1 else made
