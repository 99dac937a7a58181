"""`tui-llm steer`: a direction between two prompts, added to the residual stream."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.inside import model_json, model_text, note_context
from tui_llm.commands.shared.options import (
    MODEL,
    force_option,
    json_option,
    number,
    prompt_argument,
    prompt_options,
    sampler_options,
    whole,
)
from tui_llm.commands.shared.output import inputs_of, out_path, put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.instruments.steer.question import Steering, SteerSide


def add(commands: Commands) -> None:
    commands.add(
        "steer",
        "activation steering: add the difference of two prompts to the residual stream, before and after",
        steer,
        _add_options,
        more="The direction is the residual stream before a block after one prompt minus that after the other, at their last tokens; "
        f"it is added to every token of PROMPT and of what is drawn. {MODEL}",
        examples=(
            'tui-llm steer "The dog was" --toward happy --away sad --coefficient 2',
            'tui-llm steer "The dog was" --toward happy --away sad --save h.safetensors',
            'tui-llm steer "The dog was" --load h.safetensors --coefficient -1',
        ),
    )


def _add_options(parser: Parser) -> None:
    prompt_argument(parser)
    prompt_options(parser)
    parser.add_argument("--toward", metavar="A", help="the prompt to steer toward")
    parser.add_argument("--away", metavar="B", help="the prompt to steer away from")
    parser.add_argument(
        "--layer",
        type=whole,
        metavar="L",
        help="before block L, from 0; the number of blocks: after the last (default: the file's, or the middle)",
    )
    parser.add_argument(
        "--coefficient",
        type=number,
        default=1.0,
        metavar="C",
        help="the direction is multiplied by it; below 0 steers the other way (default 1)",
    )
    parser.add_argument("--load", metavar="DIRECTION", help="take the direction from a safetensors file")
    parser.add_argument("--save", metavar="FILE", help="write the direction to a safetensors file")
    force_option(parser)
    parser.add_argument("--max-tokens", type=whole, default=24, metavar="N", help="tokens of each continuation (default 24)")  # fmt: skip
    parser.add_argument("--seed", type=whole, default=1, metavar="N", help="of the continuations (default 1)")
    parser.add_argument("--top", type=whole, default=8, metavar="N", help="rows of each table (default 8)")
    sampler_options(parser)
    json_option(parser)


def steer(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import engine_of, request_of, sampler_of
    from tui_llm.common.new_files import check_file
    from tui_llm.instruments.steer.question import (
        Direction,
        SteerQuestion,
        SteerSaveQuestion,
        check_coefficient,
    )

    both = options.toward is not None and options.away is not None
    if options.load is not None and (options.toward is not None or options.away is not None):
        raise UserError("--load has a direction already; leave out --toward and --away")
    if options.load is None and not both:
        raise UserError("give --toward and --away, the two prompts of the direction, or --load with a file of one")
    if options.save is not None and options.load is not None:
        raise UserError("--load and --save are of the same direction: copy the file instead")
    if options.max_tokens < 0 or options.top < 1:
        raise UserError("--max-tokens takes 0 or more, --top 1 or more")
    check_coefficient(options.coefficient)
    if options.save is not None:
        check_file(out_path(options.save, "--save"), force=options.force, inputs=inputs_of(options))  # before the work
    request = request_of(options, sampler=sampler_of(options))
    engine = engine_of(options)
    layer = options.layer if options.load is not None or options.layer is not None else engine.weights().layers // 2
    direction = Direction(options.toward or "", options.away or "", layer, options.load or "")
    question = SteerQuestion(request, direction, options.coefficient, options.top, options.max_tokens, options.seed)
    found = engine.answer(question)
    saved = None
    if options.save is not None:
        saved = engine.answer(
            SteerSaveQuestion(request, direction, str(out_path(options.save, "--save")), options.force)
        )
    note_context(engine, request)
    put_json(_steer_json(found, saved)) if options.json else put(_steer_text(found, saved))


def _steer_json(found: Steering, saved: str | None) -> dict[str, Any]:
    return {
        **model_json(found.weights),
        "layer": found.direction.layer,
        "coefficient": found.coefficient,
        "norm": found.norm,
        "residual_norm": found.stream,
        "before": _side_json(found.before),
        "after": _side_json(found.after),
        "saved": saved,
    }


def _side_json(side: SteerSide) -> dict[str, Any]:
    from tui_llm.facts import report

    return {"candidates": list(map(report.candidate_json, side.candidates)), "text": side.text}


def _steer_text(found: Steering, saved: str | None) -> str:
    from itertools import zip_longest

    from tui_llm.common.display import visible, visible_token
    from tui_llm.common.numbers import percent
    from tui_llm.facts import report
    from tui_llm.instruments.steer import words

    rows = [
        tuple(cell for row in pair for cell in ((visible_token(row.text), percent(row.raw_probability)) if row else ("", "")))
        for pair in zip_longest(found.before.candidates, found.after.candidates)
    ]  # fmt: skip
    lines = [
        model_text(found.weights),
        *words.lines(found),
        report.table(("before", "raw p", "after", "raw p"), rows, left=(0, 2)),
        f"before: {visible(found.before.text)}",
        f"after:  {visible(found.after.text)}",
    ]
    if saved is not None:
        lines.append(f"saved {visible(saved)}")
    return "\n".join(lines)
