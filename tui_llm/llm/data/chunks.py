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
    waiting, mid_document = "", False
    for text in texts:
        *ended, waiting = (waiting + text).split(END_OF_TEXT)
        for rest in ended:
            rest = rest.rstrip("\n") if mid_document else rest.strip("\n")
            if rest:
                yield rest
            if rest or mid_document:
                yield None
            mid_document = False
        if not mid_document:
            waiting = waiting.lstrip("\n")
        while len(waiting) > size + len(END_OF_TEXT):
            cut = waiting.rfind("\n", 0, len(waiting) - len(END_OF_TEXT))
            # Blank lines before the cut stay in `waiting`: they may turn out to be the document's end.
            cut = len(waiting[:cut].rstrip("\n")) if cut > 0 else 0
            cut = cut or size  # no line break: cut anywhere but inside a possible separator
            yield waiting[:cut]
            waiting, mid_document = waiting[cut:], True
    rest = waiting.rstrip("\n") if mid_document else waiting.strip("\n")
    if rest:
        yield rest
    if rest or mid_document:
        yield None
