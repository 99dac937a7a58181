"""Ignores keys that were meant for a screen that has closed."""

from __future__ import annotations


class ClosingKeys:
    """Until the screen below a closed one has been painted, the key that closed it, held or pressed twice, is ignored:
    the user has not seen that screen yet. Other keys are handled, so that typing ahead loses nothing. Mouse clicks are
    ignored too."""

    def __init__(self) -> None:
        self._last = ""
        self._sent: set[str] = set()  # keys since the last paint
        self._closing: frozenset[str] = frozenset()
        self._painted_at: float | None = None  # on the clock of `Message.time`

    def press(self, key: str, time: float) -> bool:
        """Records a key that came at `time`; returns whether it is to be handled."""
        if key in self._closing and self.unseen(time):
            return False
        self._last = key
        self._sent.add(key)
        return True

    def closed(self) -> None:
        """Records that a screen closed, by one of the keys since the last paint."""
        self._closing, self._painted_at = frozenset((self._last, *self._sent)), None

    def painted(self, now: float) -> None:
        self._sent.clear()
        if self._painted_at is None:
            self._painted_at = now

    def unseen(self, time: float) -> bool:
        """Whether an event of `time` came after a screen had closed and before the one below was painted. It may be
        handled later than that."""
        return bool(self._closing) and (self._painted_at is None or time < self._painted_at)
