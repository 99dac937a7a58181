"""Options and arguments that several commands share."""

from __future__ import annotations

import argparse

from tui_llm.commands.shared import text_input
from tui_llm.commands.shared.command import Parser
from tui_llm.common.errors import UserError

DEFAULT_MODEL = "nano"

MODEL = "--model takes a shipped model, a run, a model folder, a GGUF or checkpoint file."  # for help pages

CORPUS = (
    "text files, folders, http(s) addresses, python-reference (the language reference that ships inside Python), repeats (random letters, repeated), stories "
    "(from a grammar whose entropy is known) or tinyshakespeare (downloaded); an existing file or folder of that name takes precedence"
)

PIN = "PROMPT, or PROMPT=>TARGET with the text that should come next (split at the last =>; mind its leading space)"


# ── types ────────────────────────────────────────────────────────────────────────────────────────────────────────


def whole(text: str) -> int:
    """An option's whole number: ASCII digits, in 64 bits."""
    try:
        value = int(text)
        fits = text.isascii() and -(1 << 63) <= value < 1 << 63
    except ValueError:
        fits = False
    if not fits:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number of at most 64 bits, such as 20")
    return value


def number(text: str) -> float:
    """An option's number. The command itself decides whether nan and inf are valid."""
    try:
        value = float(text)
        if text.isascii():
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number, such as 0.8")


def refuse_ignored(options: argparse.Namespace, usual: dict[str, object], why: str) -> None:
    """Raises `UserError` if one of the options named in `usual` has another value than the usual one there: it would have no
    effect. The message begins with `why`."""
    for name, value in usual.items():
        if getattr(options, name, value) != value:
            what = name.upper() if name == "lesson" else f"--{name.replace('_', '-')}"
            raise UserError(f"{why}, so {what} would have no effect; leave it out")


# ── arguments ────────────────────────────────────────────────────────────────────────────────────────────────────


def text_argument(
    parser: Parser, dest: str = "text", help: str = "the text, in quotes where it has spaces", *, optional: bool = False
) -> None:
    """With `optional`, the command also runs without a text, and only `-` reads one from standard input."""
    _text_or_file(parser, dest, "TEXT", help, optional=optional)


def prompt_argument(parser: Parser) -> None:
    _text_or_file(parser, "prompt", "PROMPT", "the text whose next token is predicted, in quotes where it has spaces")


def _text_or_file(parser: Parser, dest: str, metavar: str, help: str, *, optional: bool = False) -> None:
    """`cli` reads the file or standard input before the command runs."""
    about = help + (text_input.OPTIONAL_HELP if optional else text_input.HELP)
    parser.add_argument(dest, nargs="?", metavar=metavar, help=about)
    parser.set_defaults(text_optional=optional)
    parser.add_argument("--file", metavar="FILE", help=text_input.FILE_HELP)
    parser.set_defaults(text_dest=dest)


def run_argument(parser: Parser, nargs: str | None = None, foreign: str = "") -> None:
    """`foreign`: what of another program's a path may name instead, for `foreign_run.find`."""
    path = f"; or the path of {foreign}" if foreign else ""
    parser.add_argument("run", nargs=nargs, metavar="RUN", help=f"the name of a run, as `tui-llm runs` lists it{path}")


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────


def tokenizer_option(
    parser: Parser,
    known: str = "gpt2, cl100k_base, o200k_base, word, char, byte (256; in a trained model 257, with <|endoftext|>)",
) -> None:
    parser.add_argument(
        "--tokenizer",
        default=DEFAULT_MODEL,
        metavar="NAME",
        help=f"{known}, a model's name or folder (default {DEFAULT_MODEL})",
    )


def allow_special_option(parser: Parser) -> None:
    parser.add_argument(
        "--allow-special", action="store_true", help="read <|endoftext|> in the text as the special token"
    )


def sampler_options(parser: Parser) -> None:
    from tui_llm.facts.sampler import APP_TEMPERATURE

    parser.add_argument(
        "--temperature",
        type=number,
        default=1.0,
        metavar="T",
        help=f"divides the logits; 0 is greedy (default 1; the app starts with {APP_TEMPERATURE:g})",
    )
    cut_options(parser)


def cut_options(parser: Parser) -> None:
    """What limits the tokens that can be drawn, and the repetition penalty."""
    from tui_llm.facts.sampler import APP_TOP_P

    parser.add_argument(
        "--top-k", type=whole, default=0, metavar="K", help="keep the K most likely tokens (default: all)"
    )
    parser.add_argument(
        "--top-p",
        type=number,
        default=1.0,
        metavar="P",
        help=f"keep the fewest tokens whose probabilities add up to P (default 1; the app starts with {APP_TOP_P:g})",
    )
    parser.add_argument(
        "--min-p",
        type=number,
        default=0.0,
        metavar="P",
        help="keep tokens at least P times as likely as the most likely one",
    )
    parser.add_argument(
        "--sequential-cuts",
        action="store_true",
        help="cut as transformers' generate does: top-p counts what top-k left, ties with the K-th token are kept (generate "
        "also uses --top-k 50 by default)",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=number,
        default=1.0,
        metavar="R",
        help="divide the logits of tokens that are in the text already by R, or multiply them where negative (default 1)",
    )


def table_options(parser: Parser) -> None:
    """More columns for a table of logits."""
    parser.add_argument(
        "--stages",
        action="store_true",
        help="show each stage from logit to probability: after the penalty, divided by T, e^x, divided by the sum, cut, renormalized",
    )
    parser.add_argument(
        "--temperatures", metavar="T,T,…", help="show softmax at these temperatures side by side, such as 0.5,1,2"
    )


def device_option(parser: Parser, default: str | None = "auto") -> None:
    parser.add_argument("--device", default=default, metavar="D", help="auto, cpu, cuda or mps")


def model_options(parser: Parser, *, remembered: bool = False) -> None:
    """`remembered`: without the option the app opens the model of last time."""
    usual = f"default {'that of last time, at first ' if remembered else ''}{DEFAULT_MODEL}"
    parser.add_argument(
        "--model",
        default=None if remembered else DEFAULT_MODEL,
        metavar="M",
        help=f"a shipped model, a run, a model folder, a GGUF or checkpoint file ({usual})",
    )
    device_option(parser)


def start_options(parser: Parser) -> None:
    """What else the app begins with."""
    parser.add_argument("--prompt", metavar="TEXT", help="the initial prompt (default that of last time)")
    parser.add_argument("--fresh", action="store_true", help="begin as at the first start: what was open, typed and set last time doesn't come back, and nothing is remembered")  # fmt: skip


def weights_option(parser: Parser, *, gradients: bool = False) -> None:
    """`gradients`: for a command that computes them, which weights in fewer bits have none of."""
    if gradients:
        parser.set_defaults(weights="fp32")
    else:
        parser.add_argument(
            "--weights",
            default="fp32",
            metavar="W",
            help="the weights' dtype: fp32, exact; half, 16 bits each; int8, faster, but with other results (default fp32)",
        )
    parser.add_argument(
        "--kernel",
        default="",
        metavar="K",
        help="what multiplies by the weights on a CPU: torch, native or fbgemm (default: what bench --machine found best)",
    )


def prompt_options(parser: Parser, *, gradients: bool = False) -> None:
    """For a command that feeds text to a model. `gradients` as in `weights_option`."""
    model_options(parser)
    text_options(parser, gradients=gradients)


def text_options(parser: Parser, *, gradients: bool = False) -> None:
    """How a text is fed to a model, whichever it is."""
    weights_option(parser, gradients=gradients)
    parser.add_argument(
        "--bos", action="store_true", help="put an explicit start token in front (GPT-2's is <|endoftext|>)"
    )
    allow_special_option(parser)
    parser.add_argument(
        "--chat", action="store_true", help="the text is a message: format it with the model's chat template"
    )


def format_options(parser: Parser) -> None:
    """How the files of a corpus are read: the settings of training."""
    from tui_llm.training.run.settings import SETTINGS, TrainingSettings

    defaults = TrainingSettings()
    for name in ("format", "field"):
        setting = SETTINGS[name]
        choices = f"{', '.join(setting.choices)}: " if setting.choices else ""
        parser.add_argument(f"--{name}", default=getattr(defaults, name), metavar=setting.metavar, help=f"{choices}{setting.help}")  # fmt: skip


def force_option(parser: Parser) -> None:
    """For a command that writes to a path that the user gives: `new_files` takes it."""
    parser.add_argument(
        "--force", action="store_true", help="replace existing files; without it nothing is overwritten"
    )


def json_option(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def action_json_option(parser: Parser) -> None:
    """`--json` of an action whose command has the option too: it can be given before the action or after it."""
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for programs")
