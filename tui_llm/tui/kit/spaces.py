"""Spaces drawn as `·` in the boxes where they count. The text itself stays as typed, character for character."""

from __future__ import annotations

import re

from rich.highlighter import Highlighter
from rich.text import Text

from tui_llm.common.display import SPACE

EVERY = re.compile(".+")  # the parts of a line whose spaces are drawn: all of it
QUOTED = re.compile('"[^"]*"')  # between quotes; outside them spaces only separate
# In prose: where a space is easily overlooked. The indentation of code, and single spaces between words, are left as they are.
UNSEEN = re.compile(r"^ (?=\S)| +$|(?<=\S) {2,}(?=\S)")
_DOUBLED = re.compile(" {2,}")
_OTHER = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f"
_TABLE = str.maketrans({" ": SPACE, **dict.fromkeys(_OTHER, "␣")})  # one cell each, as the space that they replace


def drawn(line: str, where: re.Pattern[str]) -> str:
    """`line` as it is drawn, with as many characters: within the matches of `where` each space is a `·`, and each
    other character that looks like one is a `␣`."""
    return where.sub(lambda found: found[0].translate(_TABLE), line)


def doubled(text: str) -> bool:
    """Whether a text that is more than spaces has several of them in a row, as ` purple` typed after an unseen space."""
    return bool(text.strip(" ")) and _DOUBLED.search(text) is not None


def single(text: str) -> str:
    """`text` with one space in place of several in a row."""
    return _DOUBLED.sub(" ", text)


class SpacesHighlighter(Highlighter):
    """Draws the spaces of an `Input`."""

    def highlight(self, text: Text) -> None:
        text.plain = drawn(text.plain, EVERY)
