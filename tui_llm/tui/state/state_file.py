"""The file of what comes back at the next start, and the thread that writes it.

Several apps may run: under a lock, each reads the file again and replaces only the keys that it changed. The file is
replaced as a whole, so that a reader, and a kill, see the old one or the new one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import SETTINGS, read_json
from tui_llm.tui.state.saved_state import VERSION, SavedState, parse, values

QUIET = 0.3  # seconds without a change, after which the state is written
LATEST = 2.0  # seconds after which it is written even while it changes
LAST = 5.0  # seconds to wait for the last write


class DamagedState(UserError):
    """The file is not a state that this version can read."""


def _read(path: Path) -> dict[str, Any]:
    """The file's values; none if there is no file. Raises `DamagedState`."""
    if not os.path.lexists(path):
        return {}
    try:
        found = read_json(path, SETTINGS)
        parse(found)
    except (UserError, ValueError) as error:
        raise DamagedState(str(error)) from error
    assert isinstance(found, dict)
    return found


def load() -> tuple[SavedState, str]:
    """What is remembered, and a line for the user if it can't be read: that file is then set aside."""
    try:
        path = paths.state_path()
        found = _read(path)
    except DamagedState:
        return SavedState(), _set_aside(path)
    except UserError as error:
        return SavedState(), str(error)
    return (parse(found) if found else SavedState()), ""


def _set_aside(path: Path) -> str:
    from tui_llm.common.files import locked
    from tui_llm.tui.kit.save import set_aside

    try:
        with locked(path):
            try:
                _read(path)
            except DamagedState as error:
                aside = set_aside(path)
                return f"the saved state is reset: {error}; the old file is kept as {aside.name}"
    except UserError as error:
        return str(error)
    return ""  # another app has set it aside meanwhile


def merge(changes: dict[str, Any]) -> None:
    """Writes these keys and keeps all others. Raises `UserError` if the file can't be written; it is then unchanged."""
    from tui_llm.common.files import locked, write_json
    from tui_llm.tui.kit.save import set_aside

    path = paths.state_path()
    with locked(path):
        try:
            found = _read(path)
        except DamagedState:
            found = {}
            set_aside(path)
        write_json(path, {**found, **changes, "version": VERSION})


class StateWriter:
    """Writes what changes, on a thread of its own: a disk may be slow. What changes is what differs from `saved`, the
    file's state, or where that has none from `first`, that of a first start.

    `warn` is called from that thread with a line if the state can't be written; the same line once.
    """

    def __init__(self, saved: SavedState, first: SavedState) -> None:
        self.known = {**values(first), **values(saved)}
        self.warn: Callable[[str], object] = _nobody
        self.problem = ""
        self._slot: SavedState | None = None
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def note(self, state: SavedState) -> None:
        """The newest state. Returns at once."""
        with self._wake:
            self._slot = state
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="state", daemon=True)
                self._thread.start()
            self._wake.notify()

    def finish(self) -> None:
        """Writes what is not written yet and ends the thread; waits `LAST` seconds at most."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(LAST)

    def _run(self) -> None:
        while True:
            with self._wake:
                while self._slot is None and not self._closing:
                    self._wake.wait()
                seen, latest = None, time.monotonic() + LATEST
                while seen is not self._slot and not self._closing and time.monotonic() < latest:
                    seen = self._slot
                    self._wake.wait(QUIET)
                state, self._slot, closing = self._slot, None, self._closing
            if state is not None:
                self._write(state)
            if closing:
                return

    def _write(self, state: SavedState) -> None:
        changes = {key: value for key, value in values(_lasting(state)).items() if value != self.known.get(key)}
        if not changes:
            return
        try:
            merge(changes)
        except UserError as error:
            if str(error) != self.problem:
                self.problem = str(error)
                self.warn(f"the state can't be saved: {error}")
        else:
            self.known |= changes
            self.problem = ""


def _nobody(_line: str) -> None:
    """Nobody is there to be warned; `problem` has the line."""


def _lasting(state: SavedState) -> SavedState:
    """The state with the model's name as any folder's next start can open it."""
    import dataclasses

    from tui_llm.llm.hub.lookup import lasting_name

    return state if state.model is None else dataclasses.replace(state, model=lasting_name(state.model))
