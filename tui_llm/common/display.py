"""Make untrusted text safe for the terminal; all such text passes through here.

A prompt, a file name or a sampled token may contain ESC, a C1 control or a bidirectional override. These functions
replace such characters by visible ones, so that no text can move the cursor, hide or reorder other text. They don't
escape markup: pass the result to a widget only as `Content` or `rich.text.Text`.
"""

from __future__ import annotations

import unicodedata

try:
    from rich.cells import cell_len
except ImportError:  # a GPU machine that only trains; `tui/` needs rich anyway

    def cell_len(text: str) -> int:  # type: ignore[misc]
        """The terminal cells of a text, without the clusters that rich knows."""
        marks = ("Mn", "Me", "Cf")
        return sum(
            0 if unicodedata.category(c) in marks else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
        )


ELLIPSIS = "…"
SPACE = "·"
# The base for a combining mark at the start of a label, which would otherwise combine with the text before it.
_BASE = "◌"
# Maximum code points per cell; only stacked combining marks exceed it.
_LONGEST_CLUSTER = 8


def visible(text: str, *, newlines: bool = False) -> str:
    """`text` with all characters of Unicode categories C*, and the line and paragraph separators, made visible.

    C0 controls and DEL become their pictures (U+2400…: `␊`, `␛`, `␡`). The rest (C1, format, surrogate, private,
    unassigned) become Python escapes: `\\x9b`, `\\u202e`, `\\U000e0001`. Everything else, markup included, is
    unchanged. With `newlines`, line feeds are kept. For display only: an escape looks the same as typed text that
    spells it.
    """
    # isprintable is False exactly for C* and Z* (except the space), and is implemented in C.
    if text.isprintable():
        return text
    table = {ord(char): _shown(char) for char in set(text)}
    if newlines:
        table[ord("\n")] = "\n"
    return text.translate(table)


def visible_token(text: str) -> str:
    """A token's label: as `visible`, with each space shown as `·`, so that ` cat` and `cat` differ.

    Other characters that look like a space (U+00A0, U+3000 …) become escapes; a leading combining mark, or a skin tone,
    gets a dotted circle as its base. A token that really is `·` looks like a space; its id and bytes differ.
    """
    if text.isascii() and text.isprintable():  # the common case: a table calls this for sixty tokens per frame
        return text.replace(" ", SPACE)
    shown = visible(text).replace(" ", SPACE)
    if not shown.isprintable():  # of what is left, other spaces alone are not
        shown = shown.translate({ord(char): _escape(char) for char in set(shown) if not char.isprintable()})
    joins = shown and (unicodedata.category(shown[0])[0] == "M" or cell_len(shown[0]) == 0)  # 0: skin tones too
    return _BASE + shown if joins else shown


def truncate(text: str, cells: int) -> str:
    """`text` cut to at most `cells` terminal cells; a cut ends with `…`, which counts.

    For text that has passed `visible`: control characters would be measured as zero cells.
    """
    if cells <= 0:
        return ""
    # Measure only as much as could fit, so that a very long line costs no more than a short one.
    near = text[: cells * _LONGEST_CLUSTER + 1]
    if len(near) == len(text) and cell_len(text) <= cells:
        return text
    width, end = 0, 0
    for end, char in enumerate(near):  # noqa: B007
        width += cell_len(char)
        if width > cells - 1:
            break
    start = near[:end]
    while cell_len(start + ELLIPSIS) > cells:  # adjacent characters can be wider than their sum (❤ + U+FE0F)
        start = start[:-1]
    return start + ELLIPSIS


def token_label(text: str) -> str:
    """A token's text as `visible_token` shows it; ∅ if it is empty."""
    return visible_token(text) or "∅"


def fit(text: str, cells: int) -> str:
    """`text` in exactly `cells` cells: cut with `…` if too wide, padded with spaces if too narrow."""
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
