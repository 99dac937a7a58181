"""Keys that were meant for a window that has closed."""

from __future__ import annotations


class ClosingKeys:
    """The key that closed a window, held or pressed twice, is no command of what is below until that has been painted:
    nobody has seen it before. Other keys are: who types ahead loses nothing. Nor is there a click on what nobody has seen."""

    def __init__(self) -> None:
        self._last = ""
        self._sent: set[str] = set()  # since the last paint
        self._closing: frozenset[str] = frozenset()
        self._painted_at: float | None = None  # by the clock of `Message.time`

    def press(self, key: str, time: float) -> bool:
        """Notes a key that came at `time`; whether it goes on."""
        if key in self._closing and self.unseen(time):
            return False
        self._last = key
        self._sent.add(key)
        return True

    def closed(self) -> None:
        """A window closed: by one of these keys."""
        self._closing, self._painted_at = frozenset((self._last, *self._sent)), None

    def painted(self, now: float) -> None:
        self._sent.clear()
        if self._painted_at is None:
            self._painted_at = now

    def unseen(self, time: float) -> bool:
        """Whether what came at `time` came after a window had closed, and before what is below was painted. It may be
        processed later than that."""
        return bool(self._closing) and (self._painted_at is None or time < self._painted_at)
