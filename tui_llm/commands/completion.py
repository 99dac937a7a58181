"""`tui-llm completion`: a shell's completion script, made by shtab from the parser, and the names that it asks for."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any

from tui_llm.commands.shared.command import Commands
from tui_llm.commands.shared.output import put
from tui_llm.common.errors import UserError
from tui_llm.llm.model.device_names import DEVICES
from tui_llm.llm.model.weight_names import WEIGHTS
from tui_llm.training.run.settings import PRESETS

SHELLS = ("bash", "zsh", "fish")

NAMES = ("models", "runs", "tokenizers", "corpora")


def add(commands: Commands) -> None:
    parser = commands.add(
        "completion",
        "print a script that completes tui-llm in a shell",
        completion,
        more="It completes commands, options and their values, and the names of models, runs, vocabularies and corpora. Add one of these "
        "to your shell's start-up file, or for fish run it once:\n\n"
        '  bash   eval "$(tui-llm completion bash)"\n'
        '  zsh    eval "$(tui-llm completion zsh)"      after compinit\n'
        "  fish   tui-llm completion fish > ~/.config/fish/completions/tui-llm.fish",
        examples=("tui-llm completion bash", "tui-llm completion models"),
    )
    parser.add_argument(
        "what",
        metavar="SHELL",
        choices=(*SHELLS, *NAMES),
        help="bash, zsh or fish; or, as the scripts do, names to complete: models, runs, tokenizers, corpora",
    )


FILES, FOLDERS = "files", "folders"
WANTED = {  # option, or metavar of a positional argument → what completes it
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
CHOICES = {  # options whose values are checked by the command, not by the parser
    "--device": DEVICES,
    "--weights": tuple(WEIGHTS),
    "--preset": tuple(PRESETS),
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


def script(shell: str) -> str:
    try:
        import shtab
    except ImportError as error:
        raise UserError("completion needs the package shtab: pip install shtab") from error
    from tui_llm.commands.shared.parser import build_parser

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
    """shtab's completion for an option's value or a positional argument; None where there is none."""
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
