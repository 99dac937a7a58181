"""`tui-llm logits`: the next token's logits and probabilities."""

from __future__ import annotations

import argparse
import math

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import (
    MODEL,
    json_option,
    prompt_argument,
    prompt_options,
    sampler_options,
    table_options,
    whole,
)
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted


def add(commands: Commands) -> None:
    commands.add(
        "logits",
        "prompt → logits and probabilities of the next token",
        logits,
        _add_options,
        more="Prints the most likely next tokens: logit, raw p (softmax of the logits alone) and p (after temperature, cuts and "
        f"renormalizing: the distribution that is sampled). {MODEL}",
        examples=(
            'tui-llm logits "Once upon a time" --top 5 --temperature 0.8 --top-p 0.9',
            'tui-llm logits "The cat" --find dog',
            'tui-llm logits "The cat" --stages --json',
        ),
    )


def _add_options(parser: Parser) -> None:
    prompt_argument(parser)
    prompt_options(parser)
    parser.add_argument("--top", type=whole, default=20, metavar="N", help="how many candidates to list (default 20)")
    parser.add_argument(
        "--find",
        metavar="TEXT",
        help="list the tokens of the whole vocabulary that contain TEXT; =TEXT: exactly it; #262: an id",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="ID=LOGIT",
        help="what if: this token had this logit; can be given several times",
    )
    sampler_options(parser)
    table_options(parser)
    json_option(parser)


def overrides(words: list[str]) -> tuple[tuple[int, float], ...]:
    """`262=3.5` → (262, 3.5). A later value for the same id replaces an earlier one. Raises `UserError`."""
    found: dict[int, float] = {}
    for word in words:
        id, _, number = word.partition("=")
        try:
            found[int(id.removeprefix("#"))] = value = float(number)
        except ValueError:
            value = math.nan
        if math.isnan(value) or value == math.inf:
            raise UserError(f"{word!r} is not ID=LOGIT, such as 262=3.5 (-inf makes the token impossible)")
    return tuple(sorted(found.items()))


def logits(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared import report_stages
    from tui_llm.commands.shared.engine import engine_of, request_of, sampler_of
    from tui_llm.common.display import visible
    from tui_llm.facts import report
    from tui_llm.instruments.temperatures.question import TemperaturesQuestion, parse
    from tui_llm.instruments.vocabulary.question import VocabularyQuestion

    if options.top < 1:
        raise UserError(f"--top is {options.top}; give 1 or more")
    asked = parse(options.temperatures) if options.temperatures is not None else ()
    request = request_of(options, sampler=sampler_of(options), top=options.top, overrides=overrides(options.set))
    engine = engine_of(options, numpy_first=True)
    reading = engine.read(request)
    if reading.problem:
        raise UserError(reading.problem + ("" if reading.prompt_ids else " (--bos)"))
    assert reading.distribution is not None
    page = None
    if options.find is not None:
        page = engine.answer(VocabularyQuestion(request, stop=options.top, find=options.find))
    columns = engine.answer(TemperaturesQuestion(request, asked, options.top)) if asked else None
    if options.json:
        made = {
            **report.source_json(reading.weights, reading.prompt_ids, reading.choices),
            "fed": reading.fed,
            **report.distribution_json(reading.distribution),
        }
        if request.overrides:
            made["overrides"] = {str(id): report.finite(value) for id, value in request.overrides}
        if page is not None:
            made["found"] = {"count": page.count, "candidates": [report.candidate_json(row) for row in page.rows]}
        if columns is not None:
            made["temperatures"] = report_stages.temperatures_json(columns)
        put_json(made)
        return
    put(report.heading(reading.weights, reading.choices))
    if request.overrides:
        changed = ", ".join(
            f"{visible(engine.token(id).text)!r} (id {id}) = {value:g}" for id, value in request.overrides
        )
        many = "1 logit" if len(request.overrides) == 1 else f"{len(request.overrides)} logits"
        put(f"what if: {many} changed: {changed}")
    if page is not None:
        put(
            f"{counted(page.count, 'token')} {'matches' if page.count == 1 else 'match'} {visible(options.find)!r}, likeliest first:"
        )
        show = report_stages.stages_rows_text if options.stages else report.rows_text
        put(show(reading.distribution, page.rows))
    elif options.stages:
        put(report_stages.stages_text(reading.distribution))
    else:
        put(report.distribution_text(reading.distribution))
    if columns is not None:
        put("\n" + report_stages.temperatures_text(columns))
