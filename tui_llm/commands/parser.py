"""The parser of the whole command line, assembled from the files of the commands that are needed."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from tui_llm.commands import app
from tui_llm.commands.command import Commands

FILES = {  # each command's module in this package, in the order in which --help lists the commands
    "tokens": "tokens",
    "examples": "examples",
    "logits": "logits",
    "softmax": "softmax",
    "loss": "loss",
    "generate": "generate",
    "train": "train",
    "evaluate": "evaluate",
    "runs": "runs",
    "control": "control",
    "probes": "probes",
    "stop": "stop",
    "export": "export",
    "vocabulary": "vocabulary",
    "merges": "merges",
    "letters": "letters",
    "surprisal": "surprisal",
    "attention": "attention",
    "lens": "lens",
    "neighbours": "neighbours",
    "models": "models",
    "serve": "serve",
    "batch": "batch",
    "samples": "samples",
    "learn": "learn",
    "draw": "draws",
    "tree": "tree",
    "tour": "tour",
    "bench": "bench",
    "completion": "completion",
}


def build_parser(words: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The parser; with `words`, only the commands that a command line of these words needs."""
    parser = app.parser()
    commands = Commands(parser, dest="command", metavar="COMMAND", title="commands")
    for file in FILES.values() if words is None else files_for(words):
        # Imported by name, so that a command line imports the files of its own command only. This is the one place that does so.
        importlib.import_module(f"tui_llm.commands.{file}").add(commands)
    return parser


def files_for(words: Sequence[str]) -> list[str]:
    """The files for the commands among `words`; all files where `--help` comes before any command."""
    places = [i for i, word in enumerate(words) if word in FILES]
    before = words[: places[0]] if places else words
    if any(word.startswith(("-h", "--h")) for word in before):
        return list(FILES.values())
    return list(dict.fromkeys(FILES[words[i]] for i in places))
