"""`tui-llm completion`: the script for a shell, made by shtab from the parser itself, and the names that it asks for."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any

from tui_llm.commands.options import AddCommand
from tui_llm.commands.output import put
from tui_llm.common.errors import UserError

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


FILES, FOLDERS = "files", "folders"
WANTED = {  # by option, or by a positional's metavar: what can stand there
    "--model": "models",
    "--from": "models",
    "MODEL": "models",
    "--run": "runs",
    "RUN": "runs",
    "OLD": "runs",
    "--tokenizer": "tokenizers",
    "CORPUS": "corpora",
    "TEXT…": "corpora",
    "FILE": FILES,
    "FOLDER": FOLDERS,
    "--out": FOLDERS,
    "--keep": FOLDERS,
}
CHOICES = {  # options whose few values are checked later, not by the parser
    "--device": ("auto", "cpu", "cuda", "mps"),
    "--weights": ("fp32", "half", "int8"),
    "--preset": ("toy", "small", "nano", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"),
}
PREAMBLE = {
    "bash": "".join(
        f'_tui_llm_{what}() {{ compgen -W "$(tui-llm completion {what} 2>/dev/null)" -- "$1"; {"compgen -f -- $1; " if what != "runs" else ""}}}\n'
        for what in NAMES
    )
    + "".join(
        f'_tui_llm_words_{name.strip("-")}() {{ compgen -W "{" ".join(words)}" -- "$1"; }}\n'
        for name, words in CHOICES.items()
    ),
    "zsh": "".join(
        f'_tui_llm_{what}() {{ compadd -- ${{(f)"$(tui-llm completion {what} 2>/dev/null)"}}{"; _files" if what != "runs" else ""} }}\n'
        for what in NAMES
    ),
}


def completion(options: argparse.Namespace) -> None:
    from tui_llm.common.display import visible

    if options.what in SHELLS:
        put(script(options.what))
        return
    for name in sorted(set(names(options.what))):
        if visible(name) == name and not any(c.isspace() or c in "'\"`$\\;&|<>()" for c in name):
            put(name)  # no shell is given a name that it could take for anything but a word


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


def script(shell: str) -> str:
    try:
        import shtab
    except ImportError as error:
        raise UserError("completion needs the package shtab: pip install shtab") from error
    from tui_llm.commands.parser import build_parser

    parser = build_parser()
    for action in all_actions(parser):
        complete = completer(action)
        if complete is not None:
            action.complete = complete  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell, preamble=PREAMBLE))  # type: ignore[arg-type]  # it takes one by shell too


def all_actions(parser: argparse.ArgumentParser) -> Iterable[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from all_actions(sub)


def completer(action: argparse.Action) -> dict[str, Any] | None:
    """What shtab is to write after an option, or for a positional argument; None where nothing is known of it."""
    import shtab

    for name in (*action.option_strings, str(action.metavar)):
        if name in CHOICES:
            words = " ".join(CHOICES[name])
            return {
                "bash": f"_tui_llm_words_{name.strip('-')}",
                "zsh": f"({words})",
                "fish": f'(printf "%s\\n" {words})',
            }
        want = WANTED.get(name)
        if want == FILES:
            return shtab.FILE
        if want == FOLDERS:
            return shtab.DIRECTORY
        if want is not None:
            return {"bash": f"_tui_llm_{want}", "zsh": f"_tui_llm_{want}", "fish": f"(tui-llm completion {want})"}
    return None
