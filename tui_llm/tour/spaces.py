"""Spaces around a target: a leading space is part of the token, and easily typed twice or not at all."""

from __future__ import annotations

import unicodedata

from tui_llm.common.display import visible_token
from tui_llm.tour.facts import Facts
from tui_llm.tour.numbers import foreign

CASED = ("Lu", "Ll")  # letters of scripts that put a space between words


def wrong_space(now: Facts) -> str:
    """What is wrong with the space between the text and a typed target, and how to mend it; empty if nothing is.

    A target that is a row of the table is as the vocabulary has it, so nothing is wrong with it.
    """
    if now.reading is None or now.reading.request.target is None:
        return ""
    text = now.reading.request.target.text
    if not text:
        return ""
    shown = f"“{foreign(visible_token(text), 24)}” (· is a space)"
    if "  " in text:
        mend = "{target_space} removes one" if text.startswith("  ") else "{target} types it again"
        return f"the target {shown} has a doubled space: {mend}"
    before = _before(now)
    if before.endswith(" ") and text.startswith(" "):
        return f"the text ends with a space and the target {shown} begins with one, which makes two: {{target_space}} removes it"
    if before and unicodedata.category(before[-1]) in CASED and unicodedata.category(text[0]) in CASED:
        return f"the target {shown} has no leading space, so it continues the word before: {{target_space}} adds it"
    return ""


def _before(now: Facts) -> str:
    """The end of the text that the target follows; empty if it is not known."""
    reading = now.reading
    if reading is None or reading.request.position is None:
        return now.prompt + "".join(step.text for step in now.steps)
    if reading.request.tokenizer is not None:  # its tokens are not those that the position counts
        return ""
    at = reading.position - reading.tokens.first
    return "".join(token.text for token in reading.tokens.tokens[max(0, at - 2) : max(0, at)])
