"""`tui-llm completion`: a shell's completion script, made by shtab from the parser, and the names that it asks for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.output import put

SHELLS = ("bash", "zsh", "fish")
NAMES = ("models", "runs", "tokenizers", "corpora")


def add(commands: Commands) -> None:
    commands.add(
        "completion",
        "print a script that completes tui-llm in a shell",
        completion,
        _add_options,
        more="It completes commands, options and their values, and the names of models, runs, vocabularies and corpora. Add one of these "
        "to your shell's start-up file, or for fish run it once:\n\n"
        '  bash   eval "$(tui-llm completion bash)"\n'
        '  zsh    eval "$(tui-llm completion zsh)"      after compinit\n'
        "  fish   tui-llm completion fish > ~/.config/fish/completions/tui-llm.fish",
        examples=("tui-llm completion bash", "tui-llm completion models"),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument(
        "what",
        metavar="SHELL",
        choices=(*SHELLS, *NAMES),
        help="bash, zsh or fish; or, as the scripts do, names to complete: models, runs, tokenizers, corpora",
    )


def completion(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible

    if options.what in SHELLS:
        from tui_llm.commands.shared.completion_script import script

        put(script(options.what, NAMES))
        return
    for name in sorted(set(names(options.what))):
        if visible(name) == name and not any(c.isspace() or c in "'\"`$\\;&|<>()" for c in name):
            put(name)  # never a name that a shell could read as anything but one word


def names(what: str) -> Iterator[str]:
    if what == "runs":
        from tui_llm.training.run import run

        yield from (one.name for one in run.runs())
    elif what == "corpora":
        from tui_llm.llm.data.corpora import NAMES as corpora

        yield from corpora
    else:
        from tui_llm.llm.hub import lookup
        from tui_llm.llm.tokens import added

        yield from (found.name for found in lookup.every())
        if what == "tokenizers":
            yield from ("gpt2", "cl100k_base", "o200k_base", "word", "char", "byte", *added.added_names())
