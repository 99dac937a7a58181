"""The names of the devices. `device.choose` checks whether one is available."""

from __future__ import annotations

from tui_llm.common.errors import UserError
from tui_llm.common.suggestions import no_such

DEVICES = ("auto", "cpu", "cuda", "mps")


def check_device(name: str) -> str:
    """Return `name` if it is in `DEVICES`, optionally with an index, as `cuda:1`. Raises `UserError` otherwise."""
    kind, colon, index = name.partition(":")
    if kind not in DEVICES or (colon and not index.isdecimal()):
        raise UserError(no_such("device", name, DEVICES))
    return name
