"""`tui-llm neighbours`: the tokens with the nearest embeddings."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.inside import model_json, model_text
from tui_llm.commands.shared.options import MODEL, json_option, model_options, weights_option, whole
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.instruments.neighbours.question import Neighbours


def add(commands: Commands) -> None:
    commands.add(
        "neighbours",
        "the tokens whose embeddings are nearest to one token's",
        neighbours,
        _add_options,
        more=f"Prints the nearest tokens by the cosine of the angle between embeddings. {MODEL}",
        examples=('tui-llm neighbours " king"', 'tui-llm neighbours "#464" --count 5'),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("token", metavar="TOKEN", help="one token, as in ' king', or #464 for the id 464")
    model_options(parser)
    weights_option(parser)
    parser.add_argument("--count", type=whole, default=20, metavar="N", help="how many to list (default 20)")
    json_option(parser)


def neighbours(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared import spaces
    from tui_llm.commands.shared.engine import engine_of
    from tui_llm.facts.request import Request
    from tui_llm.instruments.neighbours.question import NeighboursQuestion

    if options.count < 1:
        raise UserError(f"--count is {options.count}; give 1 or more")
    engine = engine_of(options)
    found: Neighbours = engine.answer(NeighboursQuestion(Request(), count=options.count, text=options.token))
    spaces.note_token(engine, options.token)
    put_json(_neighbours_json(found)) if options.json else put(_neighbours_text(found))


def _neighbours_json(found: Neighbours) -> dict[str, Any]:
    from tui_llm.facts import report

    return {
        **model_json(found.weights),
        "token": report.token_json(found.token),
        "width": found.width,
        "norm": report.finite(found.norm),
        "neighbours": [{**report.token_json(n.token), "cosine": report.finite(n.cosine)} for n in found.nearest],
    }


def _neighbours_text(found: Neighbours) -> str:
    from tui_llm.common.display import token_label
    from tui_llm.facts import report

    rows = [
        (str(at), token_label(n.token.text), str(n.token.id), f"{n.cosine:.4f}")
        for at, n in enumerate(found.nearest, 1)
    ]
    return "\n".join(
        [
            f"{model_text(found.weights)}: nearest to {token_label(found.token.text)} (id {found.token.id}) by the cosine of their "
            f"embeddings, {found.width} numbers each",
            report.table(("", "token", "id", "cosine"), rows, left=(1,)),
        ]
    )
