"""Copies what is shown to the clipboard, and saves readings to files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.files import json_text
from tui_llm.facts.interventions import mark
from tui_llm.facts.reading import Reading
from tui_llm.tui.kit.over import Row, copy_rows
from tui_llm.tui.kit.save import save_new
from tui_llm.tui.state.context import LabContext


def plain(value: Any) -> Any:
    """A reading as values that JSON can hold: bytes in hexadecimal, infinities and NaN as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value


def reading_json(reading: Reading) -> dict[str, Any]:
    """The reading as values that JSON can hold; `interventions` names the changes of the model's parts."""
    return {**plain(reading), "interventions": [one.name for one in reading.request.interventions]}


def save_reading(reading: Reading) -> Path:
    """Writes `reading-N.json` into the current folder or, if that is not writable, the data folder. Raises `UserError`
    if neither can be written."""
    return save_new("reading", "json", "readings", json_text(reading_json(reading)))


class CopySaveController:
    """`table` returns the current pane as rows of cells, the header first; `of_reading` whether it shows a reading."""

    def __init__(
        self, context: LabContext, table: Callable[[], Iterable[Row]], of_reading: Callable[[], bool] = lambda: True
    ) -> None:
        self.context, self.table, self.of_reading = context, table, of_reading

    def copy_pane(self) -> None:
        reading = self.context.reading
        changed = mark(reading.request.interventions) if reading is not None and self.of_reading() else ""
        self.context.notify(copy_rows(self.context, list(self.table()), changed))

    def copy_json(self) -> None:
        if (reading := self._reading()) is not None:
            self.context.copy_to_clipboard(json.dumps(reading_json(reading), ensure_ascii=False))
            self.context.notify("copied the reading as JSON")

    def save(self) -> None:
        reading = self._reading()
        if reading is None:
            return
        try:
            path = save_reading(reading)
        except UserError as error:
            self.context.warn(str(error))
        else:
            self.context.notify(f"saved {path}")

    def _reading(self) -> Reading | None:
        if self.context.reading is None:
            self.context.notify("there is no reading yet")
        return self.context.reading
