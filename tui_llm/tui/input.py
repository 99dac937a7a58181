"""Makes terminal input safe to parse: invalid UTF-8, escape characters in a paste, pastes without paste sequences, Esc and
a key right behind it.

Textual's own reader ends the app at the first invalid UTF-8 byte (a pasted binary, a Latin-1 terminal), and treats an
escape character inside a bracketed paste as a key, which garbles the text around it. Some terminals have no bracketed
paste mode: a megabyte of text would arrive as a million key events, which take a quarter of an hour and run commands
if a pane has the focus.

Terminals send Esc as the character with which their other keys begin, and Alt with a key as Esc and that key. tmux (it holds
Esc for half a second) and slow links deliver Esc and the next key together, and Textual reads Alt: `Esc 1` typed ¡ into the
prompt, `Esc g` a g. No key here is Alt with a character, but for the editor's Alt+f and Alt+b, which shells have too and
which macOS terminals send for Option with an arrow.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
from collections.abc import Callable

from textual import events
from textual.driver import Driver
from textual.message import Message

ESC = "\x1b"
PASTE_BEGINS, PASTE_ENDS = "\x1b[200~", "\x1b[201~"
# A Unicode noncharacter, which no text should contain: replaces ESC from here to the Paste event.
STAND_IN = "\ufdeb"
# "Mode 0 is not known": a terminal's answer that nobody waits for. It ends an Esc that waits for more characters.
# [ and O begin the sequences of other keys; P, X, ], ^ and _ those that terminals answer with.
APART = "\x1b[?0;0$y"
_ESC_AND_KEY = re.compile("\x1b([^\x00-\x1f\x7f-\x9f[OPX\\]^_bf])")
FLOOD = 256  # characters in one read: more than typing or a held key gives between two reads


class InputDecoder:
    """Decodes chunks of bytes into characters for Textual's parser."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pasting = False
        self._held = ""  # end of a chunk that may be the start of the end-of-paste sequence
        self._recent = ""  # last characters before a paste: its start sequence may be split, and no key may wait

    def decode(self, data: bytes, final: bool = False) -> str:
        """Raises `OSError` (EIO) at the end of the input: reading a terminal that is gone gives that error or, after its SIGHUP, no
        bytes. Textual would go on reading until the driver is stopped, and if that fails, for ever, with a whole core."""
        if not data and not final:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        text = self._decoder.decode(data, final)
        out = ""
        while text or (self._held and final):
            if self._pasting:
                pasted, ended, text = (self._held + text).partition(PASTE_ENDS)
                self._held = ""
                if not ended and not final:
                    pasted = self._hold(pasted)
                out += pasted.replace(ESC, STAND_IN) + ended
                self._pasting = not ended
            else:
                seen = self._recent + text
                at = seen.find(PASTE_BEGINS)
                keys = len(text) if at < 0 else at + len(PASTE_BEGINS) - len(self._recent)
                self._pasting = at >= 0
                typed = apart(text[:keys], self._recent.endswith(ESC))
                if not self._pasting and ESC not in self._recent and is_pasted(typed):
                    typed = PASTE_BEGINS + typed + PASTE_ENDS
                self._recent = "" if self._pasting else seen[1 - len(PASTE_BEGINS) :]
                out, text = out + typed, text[keys:]
        return out

    def _hold(self, text: str) -> str:
        """Returns `text` without a trailing part of the end-of-paste sequence, which is held for the next chunk."""
        for length in range(min(len(PASTE_ENDS) - 1, len(text)), 0, -1):
            if text.endswith(PASTE_ENDS[:length]):
                self._held = text[-length:]
                return text[:-length]
        return text


def apart(typed: str, after_esc: bool) -> str:
    """Returns `typed` with `APART` between an Esc and a key that is no part of a sequence. `after_esc`: the character before was
    an Esc, which may still wait in Textual's parser."""
    before = ESC if after_esc else ""
    return _ESC_AND_KEY.sub(lambda found: ESC + APART + found[1], before + typed)[len(before) :]


def is_pasted(text: str) -> bool:
    """Whether input without paste sequences is a paste: at least `FLOOD` characters in one read, and no control
    characters other than line breaks and tabs."""
    return len(text) >= FLOOD and not any(
        char < " " or "\x7f" <= char <= "\x9f" for char in text if char not in "\r\n\t"
    )


def safe(driver: type[Driver], terminal_closed: Callable[[], object]) -> type[Driver]:
    """A subclass of Textual's Unix driver that decodes input with a `InputDecoder`; other drivers are returned unchanged.

    `terminal_closed` is called by the app if reading says so: between the end of a terminal and its SIGHUP.
    """
    if driver.__module__ != "textual.drivers.linux_driver":
        return driver

    class SafeDriver(driver):  # type: ignore[misc, valid-type]
        suspended = False

        def suspend_application_mode(self) -> None:
            super().suspend_application_mode()
            self.suspended = True

        def resume_application_mode(self) -> None:
            """Textual calls it at each SIGCONT. Without a SIGTSTP before (SIGSTOP; a closed terminal sends SIGCONT after SIGHUP) it would
            start second threads for input and output beside the first, which no exit ends for sure. A job that was started in the
            background stops before it has any."""
            if self.suspended or self._writer_thread is None:
                self.suspended = False
                super().resume_application_mode()
                self._soon(lambda: self._app.refresh(layout=True))
            else:
                self._soon(self._take_terminal_again)

        def _soon(self, call: Callable[[], object]) -> None:
            """Lets the app call `call`, from a signal's handler. A handler runs between any two steps of the event loop. A message that it
            puts into the app's queue while that begins to wait wakes nobody, and the app then handles no message any more."""
            with contextlib.suppress(RuntimeError):  # the app has ended, and its loop is closed
                self._loop.call_soon_threadsafe(self._app.call_later, call)

        def _take_terminal_again(self) -> None:
            """Sets the terminal's modes, which a shell changes while the process is stopped."""
            self.suspend_application_mode()
            self.resume_application_mode()

        def run_input_thread(self) -> None:
            from textual.drivers import linux_driver

            linux_driver.__dict__["getincrementaldecoder"] = lambda _encoding: InputDecoder
            try:
                super().run_input_thread()
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                self._app.call_later(terminal_closed)  # in Textual, a failed app

        def process_message(self, message: Message) -> None:
            if isinstance(message, events.Paste):
                message.text = message.text.replace(STAND_IN, ESC)
            super().process_message(message)

    return SafeDriver
