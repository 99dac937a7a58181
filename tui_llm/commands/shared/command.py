"""How a command is added to the command line: its parser, its help page and the function that runs it."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from tui_llm.common.errors import UserError
from tui_llm.common.suggestions import did_you_mean

Run = Callable[[argparse.Namespace], int | None]
"""What a command does. Returns its exit status, None for 0."""

WIDEST = 80  # columns of a help page


class Formatter(argparse.HelpFormatter):
    """Wraps help pages at 80 columns at most and keeps their paragraphs."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=min(WIDEST, shutil.get_terminal_size().columns) - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wraps each paragraph of one line; a paragraph of several lines is already laid out."""
        wrap = super()._fill_text
        return "\n\n".join(part if "\n" in part else wrap(part, width, indent) for part in text.split("\n\n"))


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line that says what to do."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` lists the options")

    given: list[tuple[argparse.Action, list[str]]]
    """The options on the command line so far, with their values: also those that equal a default, which the namespace can't show."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses words that it doesn't know itself: argparse leaves them to the program's own parser, whose error names the help
        page of the program instead of the command's."""
        self.given = []
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            meant = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant and f'; {meant.strip()}'}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            meant = did_you_mean(str(value), map(str, action.choices or ()))
            if meant:
                error.message = error.message.replace(" (choose", f"; {meant}(choose", 1)
            raise

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Records each option that is given. Keeps the value of `--option=--`, and a second `--` in the place of a required argument:
        argparse takes them for separators and replaces them by an empty list (Python 3.11; the second also 3.13.0)."""
        if action.option_strings:
            self.given.append((action, arg_strings))
        if action.nargs is None and arg_strings == ["--"]:
            value = self._get_value(action, arg_strings[0])
            self._check_value(action, value)
            return value
        return super()._get_values(action, arg_strings)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Raises where the output can't be written; argparse's own method ignores a full disk."""
        (file or sys.stdout).write(message)


class _PassOn(argparse._SubParsersAction):  # type: ignore[type-arg]  # generic in typeshed only
    """Passes the options that come before a command on to it: argparse overwrites them with the command's defaults."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:  # fmt: skip
        name, *rest = values
        options = self.choices[name]._option_string_actions if name in self.choices else None
        passed_on = []
        for action, words in parser.given if options is not None else ():  # type: ignore[attr-defined]  # it is a `Parser`
            option = action.option_strings[0]
            if option not in (options or ()):
                parser.error(f"{option} can't come before {name}, which has no such option")
            passed_on.append(option if action.nargs == 0 else f"{option}={words[0]}")
        super().__call__(parser, namespace, [name, *passed_on, *rest], option_string)


class Commands:
    """The commands of the program, or the actions of one command, such as `runs rename`."""

    def __init__(
        self, parser: Parser, *, dest: str, metavar: str, title: str | None = None, required: bool = False, only_list: bool = False
    ) -> None:  # fmt: skip
        self._only_list = only_list
        headings = {"title": title} if title else {}
        self._subparsers = parser.add_subparsers(
            dest=dest, metavar=metavar, required=required, parser_class=Parser, action=_PassOn, **headings
        )  # fmt: skip

    def add(
        self, name: str, summary: str, run: Run | None, add_options: Callable[[Parser], None] | None = None, *,
        more: str, examples: Sequence[str],
    ) -> Parser:  # fmt: skip
        """Adds a command and returns its parser. `add_options` adds its options, unless the commands are only listed, by name and
        summary; without it, the caller adds them.

        `summary` is its line in the list of commands and begins its help page; `more` says what it needs and prints.
        `run` is None for a command that only has actions.
        """
        parser = self._subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.\n\n{more}",
            epilog=examples_text(examples),
            formatter_class=Formatter,
        )
        if run is not None:
            parser.set_defaults(run_command=run)
        if add_options is not None and not self._only_list:
            add_options(parser)
        return parser


def actions_of(parser: Parser, *, required: bool = False) -> Commands:
    """The actions of a command, to be added to."""
    return Commands(parser, dest="action", metavar="ACTION", required=required)


def examples_text(examples: Sequence[str]) -> str:
    return "\n".join(["examples:", *(f"  {line}" for line in examples)])


def parsers(parser: argparse.ArgumentParser, path: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every parser by the words that lead to it; the program's own by an empty text."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from parsers(sub, f"{path} {name}".strip())
