"""`tui-llm why`: the target's logit as a sum over the parts of the model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.inside import TOKEN, model_json, model_text, part_json, place_json, token_number, window
from tui_llm.commands.shared.options import MODEL, json_option, prompt_options, text_argument, whole
from tui_llm.commands.shared.output import put, put_json

if TYPE_CHECKING:
    from tui_llm.instruments.why.question import Why


def add(commands: Commands) -> None:
    commands.add(
        "why",
        "direct logit attribution: the target's logit as a sum over embeddings, heads and MLPs",
        why,
        _add_options,
        more="The final residual stream is a sum of what each part wrote; with the final norm's scale frozen, so is a logit. "
        f"{MODEL}",
        examples=(
            'tui-llm why "Once upon a time, there was a little girl named" --target " Lily"',
            'tui-llm why "The cat sat on the" --rival " floor" --json',
        ),
    )


def _add_options(parser: Parser) -> None:
    text_argument(parser, "prompt")
    prompt_options(parser)
    parser.add_argument("--token", type=whole, metavar="N", help="the prediction after " + TOKEN)
    parser.add_argument(
        "--target",
        metavar="TEXT",
        help="the token to explain, as in ' mat' (default: the text's own next token, or the most likely one)",
    )
    parser.add_argument(
        "--rival",
        metavar="TEXT",
        help="compare with this token, or #464 for an id (default: the most likely other one)",
    )
    json_option(parser)


def why(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared import spaces
    from tui_llm.commands.shared.engine import engine_of, request_of, target_of
    from tui_llm.instruments.why.question import WhyQuestion

    engine = engine_of(options)
    request, token = request_of(options, target=target_of(options.target)), token_number(options, engine)
    found: Why = engine.answer(WhyQuestion(request, token, rival_text=options.rival))
    if token is None:
        spaces.note_target(engine, request)
    put_json(_why_json(found)) if options.json else put(_why_text(found))


def _why_json(found: Why) -> dict[str, Any]:
    from tui_llm.facts import report

    return {
        **model_json(found.weights),
        **place_json(found.place),
        "target": report.token_json(found.target),
        "target_is": found.chosen,
        "rival": report.token_json(found.rival),
        "logit": found.computed,
        "rival_logit": found.computed_rival,
        "scale": found.scale,
        "parts": [
            {
                **part_json(one.part),
                "value": one.value,
                "rival": one.rival,
                "difference": one.value - one.rival,
            }
            for one in found.parts
        ],
        "sum": found.logit,
        "rival_sum": found.rival_logit,
    }


def _why_text(found: Why) -> str:
    from textwrap import wrap

    from tui_llm.commands.lens import CHOSEN
    from tui_llm.common.display import token_label
    from tui_llm.facts import report
    from tui_llm.instruments.why.sums import FORWARD, KINDS, OF_THE_LOGIT, logit_sum

    made, kinds = logit_sum(found), logit_sum(found, KINDS, FORWARD)
    rows = [
        (line.name, made.text(line.value), made.text(line.rival), made.text(line.difference))
        for line in (*made.lines, made.total)
    ]
    totals = " · ".join(f"{line.name} {kinds.signed(line.difference)}" for line in kinds.lines)
    place, target, rival = found.place, token_label(found.target.text), token_label(found.rival.text)
    return "\n".join(
        [
            f"{model_text(found.weights)}: after token {place.number}, {token_label(place.token.text)}; "
            f"target {target}{CHOSEN[found.chosen]}, compared with {rival}",
            *window(place, found.weights),
            report.table(("part", target, rival, "difference"), rows, left=(0,)),
            f"of the difference: {totals}",
            *wrap(f"each part is {OF_THE_LOGIT}; σ = {found.scale:.4g}; largest difference first. Units: logits", 120),
        ]
    )
