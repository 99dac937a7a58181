"""Prepare the engine for torch on a thread of its own, while it answers in numpy."""

from __future__ import annotations

import logging
import threading

from tui_llm.common.errors import UserError
from tui_llm.facts.engine import Engine
from tui_llm.tui.state import garbage

log = logging.getLogger("tui_llm.tui")


class WarmUp:
    """`ready` is true once the engine is prepared, until torch has taken over; `wake` is then notified."""

    def __init__(self, wake: threading.Condition) -> None:
        self.ready = False
        self._wake = wake
        self._thread: threading.Thread | None = None

    def start(self, engine: Engine) -> None:
        """Has no effect but the first time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._prepare, args=(engine,), name="warm-up", daemon=True)
            self._thread.start()

    def take_over(self, engine: Engine) -> bool:
        """Whether the model ran in numpy and runs in torch now. Call it from the engine's thread."""
        self.ready = False
        try:
            return engine.use_torch() is not None
        except UserError as error:  # there is too little memory for torch: numpy goes on
            log.error("torch can't take over", exc_info=error)
            return False

    def _prepare(self, engine: Engine) -> None:
        garbage.pause(again=True)
        try:
            engine.prepare()
        except BaseException as error:  # the first question that needs torch says it
            log.error("preparing the engine failed", exc_info=error)
        else:
            with self._wake:
                self.ready = True
                self._wake.notify()
        finally:
            garbage.freeze()
