"""A setting, stated once: its values, and what forms and command lines show of it."""

from __future__ import annotations

from typing import Any, NamedTuple

MOST = 10**12  # of any count: a larger number is a typing error and may not fit a float


class Range(NamedTuple):
    """The values that a number can have, both ends included, and how an error line names them."""

    low: float
    high: float
    text: str


class Setting(NamedTuple):
    """What can be given for a field of a settings dataclass, and what form and command line show of it."""

    metavar: str
    values: Range | tuple[str, ...] | None  # None: any text
    help: str  # 36 characters at most: a line of the form's column
    objectives: tuple[str, ...] = ()  # of a run: those that it has an effect in; empty: all

    @property
    def choices(self) -> tuple[str, ...]:
        """All values; empty for a number or a text."""
        return () if self.values is None or isinstance(self.values, Range) else self.values

    def problem(self, value: Any) -> str:
        """What to give instead of `value`; empty where it is valid."""
        if isinstance(self.values, Range):
            if self.values.low <= value <= self.values.high:
                return ""
            return f"{MOST:,} at most" if self.values.high == MOST < value else self.values.text
        return "" if self.values is None or value in self.values else f"one of {', '.join(self.values)}"
