"""Keys that were meant for a window that has closed."""

from __future__ import annotations


class ClosingKeys:
    """The key that closed a window, held or pressed twice, is no command of what is below until that has been painted:
    nobody has seen it before. Other keys are: who types ahead loses nothing. Nor is there a click on what nobody has seen."""

    def __init__(self) -> None:
        self._last = ""
        self._sent: set[str] = set()  # since the last paint
        self._closing: frozenset[str] = frozenset()

    def press(self, key: str) -> bool:
        """Notes it; whether it goes on."""
        if key in self._closing:
            return False
        self._last = key
        self._sent.add(key)
        return True

    def closed(self) -> None:
        """A window closed: by one of these keys."""
        self._closing = frozenset((self._last, *self._sent))

    def painted(self) -> None:
        self._sent.clear()
        self._closing = frozenset()

    @property
    def unseen(self) -> bool:
        """Whether a window has closed since the last paint."""
        return bool(self._closing)
