"""What several commands have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from tui_llm.common.errors import UserError

AddCommand = Callable[[str, str, str], argparse.ArgumentParser]


DEFAULT_MODEL = "nano"


class Parser(argparse.ArgumentParser):
    """argparse with errors in one line that says what to do."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` shows what can be said")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """argparse (Python 3.11) takes the value of `--option=--` for a separator and gives an empty list instead."""
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            value = self._get_value(action, arg_strings[0])
            self._check_value(action, value)
            return value
        return super()._get_values(action, arg_strings)

    def _print_message(self, message: str, file: Any = None) -> None:
        """argparse's own passes over a full disk: the help would be lost without a word."""
        (file or sys.stdout).write(message)


def whole(text: str) -> int:
    """An option's whole number: ASCII digits, in 64 bits."""
    try:
        value = int(text)
        fits = text.isascii() and -(1 << 63) <= value < 1 << 63
    except ValueError:
        fits = False
    if not fits:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number of at most 64 bits, such as 20")
    return value


def number(text: str) -> float:
    """An option's number. Whether nan and inf can be used, the command says."""
    try:
        value = float(text)
        if text.isascii():
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number, such as 0.8")


def sampler_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--temperature",
        type=number,
        default=1.0,
        metavar="T",
        help="divides the logits; 0 is greedy (default 1)",
    )
    cut_options(parser)


def cut_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--top-k", type=whole, default=0, metavar="K", help="keep the K likeliest tokens (default: all)"
    )
    parser.add_argument(
        "--top-p",
        type=number,
        default=1.0,
        metavar="P",
        help="keep the fewest tokens that reach P together (default 1)",
    )
    parser.add_argument(
        "--min-p",
        type=number,
        default=0.0,
        metavar="P",
        help="keep tokens at least P times as likely as the likeliest",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=number,
        default=1.0,
        metavar="R",
        help="divide the logits of tokens that are in the text already by R, or multiply them where negative (default 1)",
    )


def table_options(parser: argparse.ArgumentParser) -> None:
    """What a table of logits can show besides."""
    parser.add_argument(
        "--stages",
        action="store_true",
        help="show the way from logit to probability: after the penalty, divided by T, e^x, divided by the sum, cut, renormalised",
    )
    parser.add_argument(
        "--temperatures", metavar="T,T,…", help="show softmax at these temperatures side by side, such as 0.5,1,2"
    )


def model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="M",
        help="a shipped model, a run, a model folder or a GGUF file (default nano)",
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or mps")


def weights_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        default="fp32",
        metavar="W",
        help="how they are kept: fp32, exact; half, 16 bits each; int8, faster still, but not the same numbers (default fp32)",
    )


def prompt_options(parser: argparse.ArgumentParser) -> None:
    model_options(parser)
    weights_option(parser)
    parser.add_argument(
        "--bos", action="store_true", help="put an explicit start token in front (GPT-2's is <|endoftext|>)"
    )
    parser.add_argument(
        "--allow-special", action="store_true", help="read <|endoftext|> in the text as the special token"
    )
    parser.add_argument(
        "--chat", action="store_true", help="the text is a message: feed it as the model's chat template writes it"
    )


def force_option(parser: argparse.ArgumentParser) -> None:
    """For whatever writes where the user says: `new_files` takes it."""
    parser.add_argument(
        "--force", action="store_true", help="write over what is there; without it nothing is overwritten"
    )


def json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
