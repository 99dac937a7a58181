"""The end of the process while a thread is still at work."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading


def leave(status: int) -> int:
    """Returns `status`, or ends the process with it at once where a daemon thread is still at work: in torch's import, or in a
    forward pass that nobody waits for any more.

    Python would take itself down around such a thread. As soon as that asks for the interpreter again, it is ended inside
    torch's C++ code, which calls `std::terminate`: SIGABRT, "terminate called without an active exception". Nothing is lost: the
    terminal has been given back, threads that write have ended (`Asker.finish`, and those that are no daemons are waited
    for here), and what is written is written aside and renamed.
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
