"""In which numbers a model's weights can be kept for reading, by name. What they do is in `fast_decode.py`; no torch here."""

from __future__ import annotations

from tui_llm.common.errors import UserError

WEIGHTS = {
    "fp32": "as they are: the exact numbers",
    "half": "16 bits a weight: half the memory, logits within about 0.01",
    "int8": "8 bits a weight: a quarter of the memory, and not the same numbers",
}


def check_weights(name: str) -> str:
    """Returns `name` if it is one of `WEIGHTS`. Raises `UserError` otherwise."""
    if name not in WEIGHTS:
        raise UserError(f"there are no weights {name!r}; there are: {', '.join(WEIGHTS)}")
    return name
