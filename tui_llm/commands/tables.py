"""The table of logits and probabilities, for a prompt and for typed logits."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from tui_llm.commands import report_stages
from tui_llm.commands.engine import engine_of
from tui_llm.commands.output import put, put_json
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.facts import report
from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.scratch.question import ScratchQuestion
from tui_llm.instruments.temperatures import question as warm
from tui_llm.instruments.temperatures.question import TemperaturesQuestion
from tui_llm.instruments.vocabulary.question import VocabularyQuestion

if TYPE_CHECKING:
    pass


def overrides(words: list[str]) -> tuple[tuple[int, float], ...]:
    """`262=3.5` → (262, 3.5). The last of an id counts. Raises `UserError`."""
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


def logits(options: argparse.Namespace, settings: SamplerSettings) -> None:
    if options.top < 1:
        raise UserError(f"--top is {options.top}; give 1 or more")
    asked = warm.parse(options.temperatures) if options.temperatures is not None else ()
    request = Request(
        prompt=options.prompt,
        allow_special=options.allow_special,
        start_token=options.bos,
        chat=options.chat,
        sampler=settings,
        top=options.top,
        overrides=overrides(options.set),
    )
    desk = engine_of(options)
    reading = desk.read(request)
    if reading.problem:
        raise UserError(reading.problem + ("" if reading.prompt_ids else " (--bos)"))
    assert reading.distribution is not None
    page = None
    if options.find is not None:
        page = desk.answer(VocabularyQuestion(request, stop=options.top, find=options.find))
    columns = desk.answer(TemperaturesQuestion(request, asked, options.top)) if asked else None
    if options.json:
        made = report.logits_json(reading)
        if request.overrides:
            made["overrides"] = {str(id): report.finite(value) for id, value in request.overrides}
        if page is not None:
            made["found"] = {"count": page.count, "candidates": [report.candidate_json(row) for row in page.rows]}
        if columns is not None:
            made["temperatures"] = report_stages.temperatures_json(columns)
        put_json(made)
        return
    put(report.heading(reading))
    if request.overrides:
        changed = ", ".join(
            f"{visible(desk.token(id).text)!r} (id {id}) = {value:g}" for id, value in request.overrides
        )
        many = "1 logit" if len(request.overrides) == 1 else f"{len(request.overrides)} logits"
        put(f"what if: {many} changed by hand: {changed}")
    if page is not None:
        put(f"{page.count:,} tokens match {visible(options.find)!r}, likeliest first:")
        show = report_stages.stages_rows_text if options.stages else report.rows_text
        put(show(reading.distribution, page.rows))
    elif options.stages:
        put(report_stages.stages_text(reading.distribution))
    else:
        put(report.distribution_text(reading.distribution))
    if columns is not None:
        put("\n" + report_stages.temperatures_text(columns))


def softmax(options: argparse.Namespace, settings: SamplerSettings) -> None:
    """The table for logits typed by hand; a token's id is its place on the command line."""
    from tui_llm.instruments.scratch import answer as scratch

    asked = warm.parse(options.temperatures) if options.temperatures is not None else ()
    made = scratch.answer(None, ScratchQuestion(Request(), tuple(options.logits), settings, asked, tuple(options.seen)))
    if options.json:
        found = report.distribution_json(made.distribution)
        if made.temperatures is not None:
            found["temperatures"] = report_stages.temperatures_json(made.temperatures)
        put_json(found)
        return
    put((report_stages.stages_text if options.stages else report.distribution_text)(made.distribution))
    if made.temperatures is not None:
        put("\n" + report_stages.temperatures_text(made.temperatures))
