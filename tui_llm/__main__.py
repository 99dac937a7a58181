"""The program's entry. It imports nothing before an interrupt can be answered without a traceback."""

import sys


def main() -> int:
    """The exit status: 130 after Ctrl+C, at any moment from here on."""
    import signal

    try:
        _tracebacks_into_the_log()
        from tui_llm import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130
    except (ImportError, MemoryError, OSError) as error:  # no memory for Python's own modules, a broken installation
        print(f"tui-llm: can't start: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2
    finally:  # while Python ends, an interrupt has nothing left to stop
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _tracebacks_into_the_log() -> None:
    """Of threads and finalizers, which nobody catches: Python would print them on the screen."""
    import threading

    def of_a_thread(what: threading.ExceptHookArgs) -> None:
        if what.exc_value is not None:
            _record(what.exc_value)

    def of_a_finalizer(what: "sys.UnraisableHookArgs") -> None:
        if what.exc_value is not None and not isinstance(what.exc_value, KeyboardInterrupt):
            _record(what.exc_value)

    threading.excepthook, sys.unraisablehook = of_a_thread, of_a_finalizer


def _record(error: BaseException) -> None:
    from tui_llm.crash_log import record

    record(error)


if __name__ == "__main__":
    raise SystemExit(main())
