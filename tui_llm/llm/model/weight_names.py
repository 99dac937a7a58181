"""Names of the weight formats for inference. `fast_decode.py` implements them; no torch here."""

from __future__ import annotations

from tui_llm.common.errors import UserError

WEIGHTS = {
    "fp32": "as they are: the exact numbers",
    "half": "16 bits a weight: half the memory, logits within about 0.01",
    "int8": "8 bits a weight: a quarter of the memory; results differ",
}


def check_weights(name: str) -> str:
    """Return `name` if it is in `WEIGHTS`. Raises `UserError` otherwise."""
    if name not in WEIGHTS:
        raise UserError(f"there are no weights {name!r}; choose one of: {', '.join(WEIGHTS)}")
    return name
