"""Textual's table, drawn as wide as it has become."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual.widgets import DataTable


class Grid(DataTable[Any]):
    """Textual measures a table's new cells once nothing else is to be done. What is drawn before that is as wide as the
    columns were, and stays so: the lines that it keeps know nothing of their width. So they are drawn anew here."""

    def _update_dimensions(self, new_rows: Iterable[Any]) -> None:
        super()._update_dimensions(new_rows)
        self._clear_caches()
        self.refresh()
