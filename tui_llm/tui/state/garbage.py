"""Python's garbage collector, set up so that it does not block the screen."""

from __future__ import annotations

import gc

# Python's defaults (700, 10, 10) traverse all the screen's objects several times while scrolling, 6 to 15 ms each time.
COLLECT_AFTER = (10_000, 10, 50)

_frozen = False  # `gc.get_freeze_count` walks all that is frozen


def pause(*, again: bool = False) -> None:
    """Disables garbage collection until `freeze`: importing torch leaves no garbage to find. Once per process, unless
    it is to be done `again`."""
    if again or not _frozen:
        gc.disable()


def freeze() -> None:
    """Freezes the objects that torch and the model created, some 300,000 that live as long as the process, so that
    later collections skip them. A full collection that traverses them blocks the screen for a quarter of a second while
    typing."""
    global _frozen
    if not gc.isenabled():
        _frozen = True
        gc.freeze()  # once or twice per process: frozen objects are never collected
        gc.set_threshold(*COLLECT_AFTER)
        gc.enable()
