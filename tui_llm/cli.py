"""The command line: parses the words and calls the command's function. What is slow is imported by the command that needs it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tui_llm.commands.shared import streams, text_input
from tui_llm.commands.shared.command import Run
from tui_llm.commands.shared.parser import build_parser
from tui_llm.common.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit status: 2 after an error, which is one line on stderr and never a traceback
    (see `problems`)."""
    streams.prepare()
    options = argparse.Namespace()
    try:
        try:
            status = _run(arguments, options)
        except SystemExit:  # of --help
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # not after an error: that of a broken pipe would take its place
        return status
    except KeyboardInterrupt:
        streams.discard_if_broken(sys.stdout)
        return 130
    except BrokenPipeError:  # the program that reads our output has ended, as `head` does
        streams.discard(sys.stdout)
        return 0
    except Exception as error:
        try:
            from tui_llm.commands.shared.problems import line

            message = line(error, options)
        except MemoryError:
            from tui_llm.common import address_space

            message = address_space.SHORT
        streams.discard_if_broken(sys.stdout)
        streams.print_error(message)
        return 2


def _run(arguments: Sequence[str] | None, options: argparse.Namespace) -> int:
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        vars(options).update(vars(build_parser(words).parse_args(words)))
    except UserError as error:
        # Raises the same error; one about the command with the names of all commands, which take much longer to build.
        build_parser(None if "COMMAND" in str(error) else words).parse_args(words, options)
    # Imported once the words are parsed: `--help` needs none of them.
    from tui_llm.common import address_space, paths
    from tui_llm.common.onednn import limit_caches
    from tui_llm.common.openmp import wait_briefly

    paths.check_current_folder()
    wait_briefly()
    limit_caches()
    address_space.check_before_torch()
    if hasattr(options, "text_dest"):
        text_input.read(options)
    if kernel := getattr(options, "kernel", ""):
        from tui_llm.llm.model.weight_names import KERNEL_VARIABLE, check_kernel

        os.environ[KERNEL_VARIABLE] = check_kernel(kernel)  # for this process and those that it starts
    run: Run = options.run_command
    return run(options) or 0


if __name__ == "__main__":
    raise SystemExit(main())
