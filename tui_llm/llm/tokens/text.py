"""Text that a tokenizer can encode: valid UTF-8; and the token that separates documents."""

from __future__ import annotations

END_OF_TEXT = "<|endoftext|>"  # separates documents


def clean(text: str) -> str:
    """`text` with each lone surrogate (which UTF-8 can't encode) replaced by U+FFFD."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
