"""A shell's completion script, made by shtab from the parser of the whole command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.llm.model.device_names import DEVICES
from tui_llm.llm.model.weight_names import WEIGHTS
from tui_llm.training.run.settings import PRESETS

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
    "--file": FILES,
    "FOLDER": FOLDERS,
    "--out": FOLDERS,
    "--keep": FOLDERS,
}
CHOICES = {  # options whose values are checked by the command, not by the parser
    "--device": DEVICES,
    "--weights": tuple(WEIGHTS),
    "--preset": tuple(PRESETS),
}


def preambles(names: Sequence[str]) -> dict[str, str]:
    """Shell functions that complete the names that `tui-llm completion NAME` prints, by shell."""
    return {
        "bash": "".join(
            f'_tui_llm_{what}() {{ compgen -W "$(tui-llm completion {what} 2>/dev/null)" -- "$1"; {"compgen -f -- $1; " if what != "runs" else ""}}}\n'
            for what in names
        )
        + "".join(
            f'_tui_llm_words_{name.strip("-")}() {{ compgen -W "{" ".join(words)}" -- "$1"; }}\n'
            for name, words in CHOICES.items()
        ),
        "zsh": "".join(
            f'_tui_llm_{what}() {{ compadd -- ${{(f)"$(tui-llm completion {what} 2>/dev/null)"}}{"; _files" if what != "runs" else ""} }}\n'
            for what in names
        ),
    }


def script(shell: str, names: Sequence[str]) -> str:
    """The script for `shell`; `names` are what `tui-llm completion` prints for it. Raises `UserError` without shtab."""
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
    return str(shtab.complete(parser, shell, preamble=preambles(names)))  # type: ignore[arg-type]  # it takes one by shell too


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
