"""Split documents into chunks that are tokenized one by one."""

from __future__ import annotations

from collections.abc import Iterator

from tui_llm.llm.tokens.text import END_OF_TEXT

CHUNK = 1 << 20  # characters tokenized at a time


def split(texts: Iterator[str], size: int = CHUNK) -> Iterator[str | None]:
    """Split documents into chunks of about `size` characters, with None after each document.

    Separators, blank lines around a document and empty documents are dropped. Chunks end before a line break, which
    tokens rarely span.
    """
    for _, chunk in placed(texts, size):
        yield chunk


def placed(texts: Iterator[str], size: int = CHUNK) -> Iterator[tuple[int, str | None]]:
    """`split`, each chunk with the number of characters of `texts` before it.

    A None stands where the document's separator begins, or at the end of the text.
    """
    waiting, at, mid_document = "", 0, False  # `waiting` begins at character `at`
    for text in texts:
        *ended, waiting = (waiting + text).split(END_OF_TEXT)
        for part in ended:
            rest = part if mid_document else part.lstrip("\n")
            begins, rest = at + len(part) - len(rest), rest.rstrip("\n")
            at += len(part)
            if rest:
                yield begins, rest
            if rest or mid_document:
                yield at, None
            at += len(END_OF_TEXT)
            mid_document = False
        if not mid_document:
            stripped = waiting.lstrip("\n")
            at, waiting = at + len(waiting) - len(stripped), stripped
        while len(waiting) > size + len(END_OF_TEXT):
            cut = waiting.rfind("\n", 0, len(waiting) - len(END_OF_TEXT))
            # Blank lines before the cut stay in `waiting`: they may turn out to be the document's end.
            cut = len(waiting[:cut].rstrip("\n")) if cut > 0 else 0
            cut = cut or size  # no line break: cut anywhere but inside a possible separator
            yield at, waiting[:cut]
            at, waiting, mid_document = at + cut, waiting[cut:], True
    rest = waiting if mid_document else waiting.lstrip("\n")
    begins, rest = at + len(waiting) - len(rest), rest.rstrip("\n")
    if rest:
        yield begins, rest
    if rest or mid_document:
        yield at + len(waiting), None
