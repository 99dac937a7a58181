"""Textual's `DataTable`, redrawn when its column widths have changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual.widgets import DataTable


class Grid(DataTable[Any]):
    """Textual measures a table's new cells when the app is idle. Lines drawn before that have the old column widths,
    and the line cache keeps them, as its key does not include the widths. So the cache is cleared here and the table
    redrawn."""

    def _update_dimensions(self, new_rows: Iterable[Any]) -> None:
        super()._update_dimensions(new_rows)
        self._clear_caches()
        self.refresh()
