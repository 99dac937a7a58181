"""The program's entry. It imports nothing before an interrupt can be answered without a traceback."""

import os
import sys
from contextlib import suppress

NO_MEMORY = b"tui-llm: there is not enough memory to start; close other programs, or raise its limit (ulimit -v)\n"


def main() -> int:
    """Runs the command line and ends the process; see `common.process_exit.exit_with` for when it returns."""
    status = _status()
    from tui_llm.common.process_exit import exit_with

    return exit_with(status)


def _status() -> int:
    """The exit status: 130 after Ctrl+C, at any moment from here on."""
    import signal

    try:
        _tracebacks_into_the_log()
        from tui_llm import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130
    except MemoryError:  # `cli.main` had none left to say so
        _say(NO_MEMORY)
        return 2
    except Exception as error:  # a broken installation: `cli` itself can't be imported
        message = f"tui-llm: can't start: {type(error).__name__}: {' '.join(str(error).split())}\n"
        _say(message.encode("utf-8", "backslashreplace"))
        return 2
    finally:  # while Python ends, an interrupt has nothing left to stop
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _say(line: bytes) -> None:
    """Writes to standard error past Python's stream: what is left in that one's buffer would change the exit status."""
    with suppress(OSError):
        os.write(2, line)


def _tracebacks_into_the_log() -> None:
    """Logs exceptions of threads and finalizers, which Python would print over the app's screen."""
    import threading

    def of_a_thread(what: threading.ExceptHookArgs) -> None:
        if what.exc_value is not None:
            _record(what.exc_value)

    def of_a_finalizer(what: "sys.UnraisableHookArgs") -> None:
        if what.exc_value is not None and not isinstance(what.exc_value, KeyboardInterrupt):
            _record(what.exc_value)

    threading.excepthook, sys.unraisablehook = of_a_thread, of_a_finalizer


def _record(error: BaseException) -> None:
    from tui_llm.common.crash_log import record

    record(error)


if __name__ == "__main__":
    raise SystemExit(main())
