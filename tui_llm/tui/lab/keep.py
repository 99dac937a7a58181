"""Copies what is shown to the clipboard, and saves readings to files."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.files import json_text
from tui_llm.facts.reading import Reading
from tui_llm.tui.kit.over import copy_rows
from tui_llm.tui.kit.save import save_new
from tui_llm.tui.state.base import LabBase


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


def save_reading(reading: Reading) -> Path:
    """Writes `reading-N.json` into the current folder or, if that is not writable, the data folder. Raises `UserError`
    if neither can be written."""
    return save_new("reading", "json", "readings", json_text(plain(reading)))


class Keeping(LabBase):
    """The lab's commands that copy and save."""

    def action_copy_pane(self) -> None:
        pane = self.pane(self.current)
        rows = list(pane.table()) if hasattr(pane, "table") else []
        self.say(copy_rows(self.app, rows))

    def action_copy_json(self) -> None:
        if self.reading is None:
            self.say("there is no reading yet")
            return
        self.app.copy_to_clipboard(json.dumps(plain(self.reading), ensure_ascii=False))
        self.say("copied the reading as JSON")

    def action_save(self) -> None:
        if self.reading is None:
            self.say("there is no reading yet")
            return
        try:
            path = save_reading(self.reading)
        except UserError as error:
            self.warn(str(error))
        else:
            self.say(f"saved {path}")
