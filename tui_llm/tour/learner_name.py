"""The name that a learner has in a class: foreign text, of bounded length."""

from __future__ import annotations

import unicodedata

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError

MOST = 40  # characters


def checked(text: str) -> str:
    """The name, without spaces around it or doubled ones. Raises `UserError` if it can't be shown, or is empty or too long."""
    if len(text) > 10 * MOST:
        raise UserError(f"a name has at most {MOST} characters; give a shorter one")
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    if not name:
        raise UserError("a name has at least one character; give one")
    if len(name) > MOST:
        raise UserError(f"a name has at most {MOST} characters; give a shorter one")
    if visible(name) != name:
        raise UserError("that name has a character that no screen shows; leave it out")
    return name
