"""End the process while daemon threads are still running."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading


def exit_with(status: int) -> int:
    """Return `status`; or, if a daemon thread is still running (in torch's import, or in a forward pass whose result is
    not needed), end the process with it at once.

    A regular interpreter shutdown would end such a thread inside torch's C++ code as soon as it asks for the GIL, which
    calls `std::terminate`: SIGABRT, "terminate called without an active exception". Nothing is lost: the terminal has
    been restored, threads that write have ended (`EngineClient.finish`; those that are no daemons are joined here), and files
    are written atomically.
    """
    threads = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    if not any(thread.daemon for thread in threads):
        return status
    for thread in threads:
        if not thread.daemon:
            thread.join()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(status)
