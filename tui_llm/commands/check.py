"""`tui-llm check`: examine a model folder or file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import json_option
from tui_llm.commands.shared.output import put, put_json, put_sentences

if TYPE_CHECKING:
    from tui_llm.facts.check import Finding

BROKEN = 1  # the exit status if something is broken


def add(commands: Commands) -> None:
    commands.add(
        "check",
        "examine a model folder or file: what is broken, and what was not checked",
        check,
        _add_options,
        more="Opens the model and prints one row per check: tensors, non-finite weights, dtype, tying, round trip of the vocabulary, "
        "ids and logits against transformers (extra `transformers`), padding rows and holes, special tokens, chat template, context. "
        "The result is OK, warning, broken, or not checked and why. Nothing in a folder is run. Exit status 1: something is broken.",
        examples=("tui-llm check nano", "tui-llm check path/to/folder", "tui-llm check model.gguf --json"),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a folder, a GGUF file, or a name that `tui-llm models` lists")
    json_option(parser)


def check(options: argparse.Namespace) -> int:
    from tui_llm.api import check_model
    from tui_llm.common.display import visible
    from tui_llm.common.numbers import counted
    from tui_llm.facts.check import CheckStatus

    made = check_model(options.model)
    if options.json:
        put_json(
            {
                "model": made.model,
                "path": made.path,
                "broken": made.broken,
                "counts": {status.value: made.count(status) for status in CheckStatus},
                "findings": [_fields(finding) for finding in made.findings],
            }
        )
        return BROKEN if made.broken else 0

    def row(finding: Finding) -> tuple[str, str, str]:
        advice = f" → {finding.advice}" if finding.advice else ""
        return finding.status.value, finding.name, visible(finding.found + advice)

    put(f"{visible(made.model)}: {visible(made.path)}")
    put_sentences(("", "check", "found"), [row(finding) for finding in made.findings], left=(0, 1, 2))
    counts = ", ".join(f"{count} {status.value}" for status in CheckStatus if (count := made.count(status)))
    put(f"{counted(len(made.findings), 'check')}: {counts}")
    return BROKEN if made.broken else 0


def _fields(finding: Finding) -> dict[str, str]:
    return {
        "name": finding.name,
        "status": finding.status.value,
        "found": finding.found,
        "advice": finding.advice,
    }
