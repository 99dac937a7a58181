"""The devices that can be asked for, by name. Whether one is there, torch says (`device.choose`)."""

from __future__ import annotations

from tui_llm.common.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")


def check_device(name: str) -> str:
    """Returns `name` if it is one of `DEVICES`, or one with a number, as `cuda:1`. Raises `UserError` otherwise."""
    kind, colon, index = name.partition(":")
    if kind not in DEVICES or (colon and not index.isdecimal()):
        raise UserError(f"there is no device {name!r}; there are: {', '.join(DEVICES)}")
    return name
