"""Words on the command line → one call. Everything slow is imported by the command that needs it."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from tui_llm.commands import streams
from tui_llm.commands.app import open_app
from tui_llm.commands.parser import build_parser
from tui_llm.common import address_space, paths
from tui_llm.common.errors import UserError
from tui_llm.common.openmp import wait_briefly


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status is 0, or 2 after one line on stderr that says what is wrong. No traceback reaches the
    screen: see `problems`."""
    streams.prepare()
    options = argparse.Namespace()
    try:
        try:
            return _run(arguments, options)
        finally:  # after SystemExit too, which --help raises
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        streams.discard(sys.stdout)
        return 0
    except Exception as error:
        try:
            from tui_llm.commands.problems import line

            said = line(error, options)
        except MemoryError:
            said = address_space.SHORT
        streams.discard_if_broken(sys.stdout)
        streams.complain(said)
        return 2


def _run(arguments: Sequence[str] | None, options: argparse.Namespace) -> int:
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        vars(options).update(vars(build_parser(words).parse_args(words)))
    except UserError:
        build_parser().parse_args(words, options)  # the same error, in a line that knows all commands
    paths.check_current_folder()
    wait_briefly()
    address_space.check_before_torch()
    if options.command is None:
        return open_app(options)
    module = importlib.import_module(f"tui_llm.commands.{options.module}")
    run: Callable[[argparse.Namespace], int | None] = getattr(module, options.command)
    return run(options) or 0


if __name__ == "__main__":
    raise SystemExit(main())
