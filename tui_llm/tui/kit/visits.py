"""Which fields of a form show their problems."""

from __future__ import annotations

from textual.widgets import Input


class FieldVisits:
    """An empty field is no mistake until it was left, or until the form was submitted."""

    def __init__(self) -> None:
        self.submitted = False
        self._left: set[str | None] = set()

    def leave(self, field: object) -> bool:
        """Notes that `field` has lost the focus; returns whether that may show a problem."""
        if not isinstance(field, Input) or not field.app.app_focus or field.id in self._left:
            return False  # no field, or the terminal has lost the focus, not the field
        self._left.add(field.id)
        return not field.value.strip()

    def shows(self, field: object) -> bool:
        """Whether a problem of `field` is shown beside it."""
        if not isinstance(field, Input) or self.submitted or field.id in self._left:
            return True
        return bool(field.value.strip()) or not field.has_focus
