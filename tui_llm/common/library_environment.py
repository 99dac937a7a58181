"""Set environment variables for the C libraries that this process loads, and for nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterable


def set_default(name: str, value: str, unless: Iterable[str] = ()) -> bool:
    """Set `name` to `value` for libraries that read it with `getenv`. Leaves `os.environ` as it is, from which the
    environment of a training worker is made. Returns whether it was set: not if the user has set it, or one of `unless`,
    and on POSIX systems only."""
    if os.name != "posix" or not {name, *unless}.isdisjoint(os.environ):
        return False
    os.putenv(name, value)
    return True
