"""`tui-llm versus`: `compare-models` with two models, under its former name and with its former JSON."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.compare_models import MORE, compared, lines, shared_options, side_json
from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.output import put, put_json

if TYPE_CHECKING:
    from tui_llm.instruments.compare_models.question import ModelComparison


def add(commands: Commands) -> None:
    commands.add(
        "versus",
        "two models and a prompt: the former name of compare-models",
        versus,
        _add_options,
        more=MORE,
        examples=('tui-llm versus nano my-run "Once upon a time"',),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("first", metavar="A", help="the first model")
    parser.add_argument("second", metavar="B", help="the second model")
    shared_options(parser)


def versus(options: argparse.Namespace) -> None:
    found = compared(options, options.first, (options.second,))
    if options.json:
        put_json(_as_json(found, options.seed))
        return
    for line in lines(found, options.seed):
        put(line)


def _as_json(found: ModelComparison, seed: int) -> dict[str, Any]:
    from tui_llm.facts.report import finite

    kl = found.divergence(0, 1)
    first, second = found.models
    return {
        "first": side_json(first),
        "second": side_json(second),
        "divergence": None
        if kl is None
        else {
            "kl_bits_first_second": finite(kl.forward),
            "kl_bits_second_first": finite(kl.reverse),
            "total_variation": kl.total_variation,
            "most": [
                {
                    "id": one.id,
                    "text": one.text,
                    "raw_probability_first": one.raw_probabilities[0],
                    "raw_probability_second": one.raw_probabilities[1],
                }
                for one in found.differences
            ],
        },
        "text": {
            "bytes": found.bytes,
            "bits_first": finite(found.bits[0]),
            "bits_second": finite(found.bits[1]),
            "problem": found.problem or None,
            "most": [
                {
                    "text": one.text,
                    "bytes": one.bytes,
                    "bits_first": finite(one.bits[0]),
                    "bits_second": finite(one.bits[1]),
                }
                for one in found.most
            ],
        },
        "seed": seed,
    }
