"""`tui-llm softmax`: the table of `logits` for logits that are typed."""

from __future__ import annotations

import argparse

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import json_option, sampler_options, table_options
from tui_llm.commands.shared.output import put, put_json


def add(commands: Commands) -> None:
    commands.add(
        "softmax",
        "the same table for logits that you type: TOKEN=LOGIT …",
        softmax,
        _add_options,
        more="Needs no model: you give the logits. Prints the table that `logits` prints.",
        examples=(
            "tui-llm softmax mat=3.2 rug=1.3 moon=-2.1",
            "tui-llm softmax a=1 b=0 --temperatures 0.5,1,2",
        ),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("logits", nargs="+", metavar="TOKEN=LOGIT", help="a token and its logit, such as mat=3.2")
    parser.add_argument(
        "--seen",
        action="append",
        default=[],
        metavar="TOKEN",
        help="a token that is in the text already, for the repetition penalty; can be given several times",
    )
    sampler_options(parser)
    table_options(parser)
    json_option(parser)


def softmax(options: argparse.Namespace) -> None:
    """Each token's id is its position on the command line."""
    from tui_llm.commands.shared import report_stages
    from tui_llm.commands.shared.engine import sampler_of
    from tui_llm.facts import report
    from tui_llm.facts.request import Request
    from tui_llm.instruments.scratch.answer import scratch
    from tui_llm.instruments.scratch.question import ScratchQuestion
    from tui_llm.instruments.temperatures.question import parse

    asked = parse(options.temperatures) if options.temperatures is not None else ()
    question = ScratchQuestion(Request(), tuple(options.logits), sampler_of(options), asked, tuple(options.seen))
    made = scratch(question)
    if options.json:
        found = report.distribution_json(made.distribution)
        if made.temperatures is not None:
            found["temperatures"] = report_stages.temperatures_json(made.temperatures)
        put_json(found)
        return
    put((report_stages.stages_text if options.stages else report.distribution_text)(made.distribution))
    if made.temperatures is not None:
        put("\n" + report_stages.temperatures_text(made.temperatures))
