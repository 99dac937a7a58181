"""`tui-llm loss`: the cross-entropy loss of a target, token by token."""

from __future__ import annotations

import argparse

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import MODEL, json_option, prompt_argument, prompt_options
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError


def add(commands: Commands) -> None:
    commands.add(
        "loss",
        "prompt and target → cross-entropy loss, token by token",
        loss,
        _add_options,
        more="Prints loss = logsumexp − logit = −ln p for each token of the target, given the prompt and the target's tokens before "
        f"it; sum and mean in nats, bits and perplexity. {MODEL}",
        examples=(
            'tui-llm loss "Once upon a" --target " time"',
            'tui-llm loss "The cat sat on the" --target " mat" --json',
        ),
    )


def _add_options(parser: Parser) -> None:
    prompt_argument(parser)
    parser.add_argument(
        "--target",
        required=True,
        metavar="TEXT",
        help="the text that comes next; mind the leading space, as in ' mat'",
    )
    prompt_options(parser)
    json_option(parser)


def loss(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared import spaces
    from tui_llm.commands.shared.engine import engine_of, request_of
    from tui_llm.facts import report
    from tui_llm.facts.request import Target

    engine, request = (
        engine_of(options, numpy_first=True),
        request_of(options, target=Target(text=options.target), top=1),
    )
    reading = engine.read(request)
    if reading.problem:
        raise UserError(reading.problem + ("" if reading.prompt_ids else " (--bos)"))
    assert reading.loss is not None
    if reading.loss.problem:
        raise UserError(reading.loss.problem)
    spaces.note_target(engine, request)
    if options.json:
        put_json(
            {
                **report.source_json(reading.weights, reading.prompt_ids, reading.choices),
                **report.loss_json(reading.loss),
            }
        )
        return
    put(report.heading(reading.weights, reading.choices))
    put(report.loss_text(reading.loss))
