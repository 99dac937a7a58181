"""Completion in the shell."""

from __future__ import annotations

from tui_llm.options import AddCommand

SHELLS = ("bash", "zsh", "fish")
NAMES = ("models", "runs", "tokenizers", "corpora")


def add(command: AddCommand) -> None:
    completion = command("completion", "print a script that completes tui-llm in a shell", "completion")
    completion.add_argument(
        "what",
        metavar="SHELL",
        choices=(*SHELLS, *NAMES),
        help="bash, zsh or fish; or, as the scripts ask it, the names that there are: models, runs, tokenizers, corpora",
    )
