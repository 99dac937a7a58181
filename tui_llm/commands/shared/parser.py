"""The parser of the whole command line, assembled from the files of the commands that are needed."""

from __future__ import annotations

import argparse
import functools
import importlib
from collections.abc import Sequence
from pathlib import Path

from tui_llm import commands
from tui_llm.commands.shared import app
from tui_llm.commands.shared.command import Commands

# In which --help lists the commands; those not named here follow, by name.
ORDER = (
    "tokens", "examples", "logits", "softmax", "loss", "generate", "train", "evaluate", "runs", "control", "probes", "stop",
    "export", "vocabulary", "merges", "letters", "surprisal", "attention", "lens", "neighbours", "models", "check", "serve", "batch",
    "samples", "learn", "draw", "tree", "tour", "bench", "completion",
)  # fmt: skip


@functools.cache
def names() -> tuple[str, ...]:
    """The names of all commands, which are those of the files in `tui_llm/commands/`. Imports none of them."""
    files = Path(commands.__path__[0]).glob("*.py")
    found = sorted(file.stem for file in files if file.stem != "__init__")
    return tuple(sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)))


def build_parser(words: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The parser; with `words`, only the commands that a command line of these words needs."""
    parser = app.parser()
    group = Commands(parser, dest="command", metavar="COMMAND", title="commands")
    for name in names() if words is None else names_for(words):
        # Imported by name, so that a command line imports the file of its own command only. This is the one place that does so.
        importlib.import_module(f"{commands.__name__}.{name}").add(group)
    return parser


def names_for(words: Sequence[str]) -> tuple[str, ...]:
    """The commands among `words`; all commands where `--help` comes before any of them."""
    found = tuple(dict.fromkeys(word for word in words if word in names()))
    before = words[: words.index(found[0])] if found else words
    return names() if any(word.startswith(("-h", "--h")) for word in before) else found
