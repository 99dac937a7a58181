"""The one gate between foreign text and the terminal.

A prompt, a file's name, a sampled token: any of them may hold ESC, a C1 control, a bidirectional override.
Here every such character becomes one that can be seen, so that nothing which passes can move the cursor,
hide, or reorder text. The gate doesn't parse markup: what it returns still reaches a widget only as `Content`
or `rich.text.Text`.
"""

from __future__ import annotations

import unicodedata

from rich.cells import cell_len

ELLIPSIS = "…"
SPACE = "·"
# A combining mark at the start of a label would sit on whatever is drawn before it; this gives it a base.
_BASE = "◌"
# No real character puts more code points into a cell than this; stacks of combining marks do.
_LONGEST_CLUSTER = 8


def visible(text: str, *, newlines: bool = False) -> str:
    """`text` with every character of Unicode's C* categories, and the line and paragraph separators, made
    visible.

    C0 controls and DEL become their pictures (U+2400…: `␊`, `␛`, `␡`). The rest (C1, format, surrogate,
    private, unassigned) become Python's escapes: `\\x9b`, `\\u202e`, `\\U000e0001`. Everything else stays,
    markup-like text too. With `newlines`, a line feed stays a line feed. It's for showing only: an escape
    isn't told from text that was typed to look like one.
    """
    # C* and Z* (the space apart) are just what Python calls unprintable, and it answers that at C's speed.
    if text.isprintable():
        return text
    table = {ord(char): _shown(char) for char in set(text)}
    if newlines:
        table[ord("\n")] = "\n"
    return text.translate(table)


def visible_token(text: str) -> str:
    """A token's label, all of it visible: as `visible`, and each space as `·`, so that ` cat` and `cat`
    differ.

    Other white space that looks like a space (U+00A0, U+3000 …) becomes its escape; a leading combining mark
    gets a dotted circle to sit on. A token that really is `·` looks the same as a space: its id and bytes
    tell.
    """
    if text.isascii() and text.isprintable():  # as most are, and a table asks for sixty in a frame
        return text.replace(" ", SPACE)
    shown = "".join(
        SPACE if char == " " else _escape(char) if unicodedata.category(char) == "Zs" else char
        for char in visible(text)
    )
    return _BASE + shown if shown and unicodedata.category(shown[0])[0] == "M" else shown


def truncate(text: str, cells: int) -> str:
    """The start of `text`, at most `cells` terminal cells wide; a cut shows as `…`, which counts.

    For text that has passed `visible`: a control character would be measured as nothing.
    """
    if cells <= 0:
        return ""
    # Looks no further than could fit, so a line of a megabyte costs no more than a short one.
    near = text[: cells * _LONGEST_CLUSTER + 1]
    if len(near) == len(text) and cell_len(text) <= cells:
        return text
    width, end = 0, 0
    for end, char in enumerate(near):  # noqa: B007
        width += cell_len(char)
        if width > cells - 1:
            break
    start = near[:end]
    while cell_len(start + ELLIPSIS) > cells:  # characters side by side can be wider than apart (❤ + U+FE0F)
        start = start[:-1]
    return start + ELLIPSIS


def fit(text: str, cells: int) -> str:
    """`text` in exactly `cells` cells: cut with `…` where it's too wide, filled with spaces where too
    narrow."""
    short = truncate(text, cells)
    return short + " " * (cells - cell_len(short))


def _shown(char: str) -> str:
    category = unicodedata.category(char)
    if category[0] != "C" and category not in ("Zl", "Zp"):
        return char
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else _escape(char)


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
