"""The terminal of a soak: input goes through the app's own reader as bytes, and all output is checked."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from textual import events
from textual._xterm_parser import XTermParser
from textual.drivers.headless_driver import HeadlessDriver
from textual.geometry import Size

from tui_llm.tui.input import ESC, STAND_IN, InputDecoder

# All that Textual sends: styles (numbers up to 255), the cursor, clearing, modes, the clipboard (base64), bells.
OURS = re.compile(
    r"\x1b\[(?:(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])?;?)*m|\x1b\[\d*(?:;\d*)?[HABCDJKG]|\x1b\[\?\d+[hl]|\x1b\[<u|\x1b\[>\d+u"
    r"|\x1b\]52;c;[A-Za-z0-9+/=]*(?:\x07|\x1b\\)|\x1b\]22;[a-z-]*\x07|\r\n|\n"
)
SUSPECT = re.compile("[\x00-\x1f\x7f-\xa0\xad\u0600-\uffff\U00010000-\U0010ffff]")


def foreign(data: str) -> str:
    """Returns the first control, format, private-use or unassigned character outside allowed sequences, in context.

    Returns an empty string if there is none.
    """
    if data == "\x07":
        return ""
    rest = OURS.sub("", data)
    for found in SUSPECT.finditer(rest):
        char = found[0]
        if char != "\xa0" and (unicodedata.category(char)[0] == "C" or unicodedata.category(char) in ("Zl", "Zp")):
            return ascii(rest[max(0, found.start() - 40) : found.start() + 40])
    return ""


class SoakDriver(HeadlessDriver):
    """A driver that Textual does not treat as headless: it draws what it would draw on a terminal."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.leaks: list[str] = []
        self.written = 0
        self._reader = InputDecoder()
        self._parser = XTermParser()

    @property
    def is_headless(self) -> bool:
        return False

    def write(self, data: str) -> None:
        self.written += len(data)
        if found := foreign(data):
            self.leaks.append(found)

    def flush(self) -> None:
        pass

    def open_url(self, url: str, new_tab: bool = True) -> None:
        pass

    def feed(self, text: str) -> None:
        """Passes typed or pasted text to the app as one read of the terminal. No text is no read; one without bytes is a closed terminal."""
        data = self._reader.decode(text.encode()) if text else ""
        for message in self._parser.feed(data) if data else ():
            self.process_message(message)

    def tick(self) -> None:
        """Turns a lone ESC into a key."""
        for message in self._parser.tick():
            self.process_message(message)

    def process_message(self, message: Any) -> None:
        if isinstance(message, events.Paste):
            message.text = message.text.replace(STAND_IN, ESC)
        super().process_message(message)

    def resize(self, width: int, height: int) -> None:
        self._size = (width, height)
        self.process_message(events.Resize(Size(width, height), Size(width, height)))
