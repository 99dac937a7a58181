"""The parser of the whole command line, assembled from the files of the commands that are needed."""

from __future__ import annotations

import argparse
import functools
import importlib
import os
from collections.abc import Sequence

from tui_llm import commands
from tui_llm.commands.shared import app
from tui_llm.commands.shared.command import Commands

# In which --help lists the commands; those not named here follow, by name.
ORDER = (
    "tokens", "examples", "logits", "softmax", "loss", "generate", "train", "find-lr", "ladder", "evaluate", "runs", "control", "probes", "stop", "replay",
    "export", "vocabulary", "merges", "letters", "surprisal", "guess", "attention", "lens", "fit-lens", "block", "backward", "why", "heads", "ablate", "patch", "steer", "neighbours", "models", "check", "serve", "batch",
    "samples", "learn", "prefer", "reward", "sft", "draw", "tree", "compare-models", "versus", "chat", "tour", "bench", "device", "completion",
)  # fmt: skip


@functools.cache
def names() -> tuple[str, ...]:
    """The names of all commands, which are those of the files in `tui_llm/commands/`, with - for _. Imports none of them."""
    files = os.listdir(commands.__path__[0])  # noqa: PTH208 - to import pathlib takes longer than to build the parser
    found = sorted(file[:-3].replace("_", "-") for file in files if file.endswith(".py") and file != "__init__.py")
    return tuple(sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)))


def build_parser(words: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The parser; with `words`, only the commands that a command line of these words needs."""
    parser = app.parser()
    listing = words is not None and _lists_commands(words)
    group = Commands(parser, dest="command", metavar="COMMAND", title="commands", only_list=listing)
    for name in names() if words is None or listing else names_for(words):
        # Imported by name, so that a command line imports the file of its own command only. This is the one place that does so.
        importlib.import_module(f"{commands.__name__}.{name.replace('-', '_')}").add(group)
    return parser


def names_for(words: Sequence[str]) -> tuple[str, ...]:
    """The commands among `words`, each once."""
    return tuple(dict.fromkeys(word for word in words if word in names()))


def _lists_commands(words: Sequence[str]) -> bool:
    """Whether `--help` comes before any command: the page that lists all commands, and none of their options."""
    found = names_for(words)
    before = words[: words.index(found[0])] if found else words
    return any(word.startswith(("-h", "--h")) for word in before)
