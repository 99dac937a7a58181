"""`tui-llm draw`: the token that a random number selects, and a histogram of many draws."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import (
    MODEL,
    cut_options,
    json_option,
    number,
    prompt_argument,
    prompt_options,
    whole,
)
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted

if TYPE_CHECKING:
    from tui_llm.instruments.draws.question import Bin, Draw, Histogram, TokenInterval


def add(commands: Commands) -> None:
    commands.add(
        "draw",
        "the next token that a random number u selects, at one or several temperatures",
        draw,
        _add_options,
        more="Prints where u falls on the cumulative distribution, at each temperature; with --count a histogram of many draws beside "
        f"the expected counts. {MODEL}",
        examples=(
            'tui-llm draw "The cat sat on the" --u 0.618 --temperature 0.5,1,2',
            'tui-llm draw "The cat sat on the" --count 1000',
        ),
    )


def _add_options(parser: Parser) -> None:
    from tui_llm.facts.sampler import APP_TEMPERATURE

    prompt_argument(parser)
    prompt_options(parser)
    parser.add_argument("--u", type=number, metavar="U", help="a number from 0 to below 1 (default: the first of the seed)")  # fmt: skip
    parser.add_argument("--temperature", default="1", metavar="T[,T…]", help=f"one or several, such as 0.5,1,2 (default 1; the app starts with {APP_TEMPERATURE:g})")  # fmt: skip
    cut_options(parser)
    parser.add_argument("--seed", type=whole, default=1, metavar="S", help="the seed of the draws (default 1)")
    parser.add_argument("--count", type=whole, metavar="N", help="draw N times: each token's count beside its expected count")  # fmt: skip
    parser.add_argument("--top", type=whole, default=20, metavar="N", help="how many tokens to list (default 20)")
    json_option(parser)


def temperatures(words: str) -> list[float]:
    """`0.5,1` → [0.5, 1.0]. Raises `UserError`."""
    try:
        return [float(word) for word in words.split(",")]
    except ValueError:
        raise UserError(f"--temperature is {words!r}; give numbers such as 0.8, or 0.5,1,2") from None


def draw(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import engine_of, request_of, sampler_of
    from tui_llm.commands.shared.inside import note_context
    from tui_llm.instruments.draws.question import DrawQuestion, HistogramQuestion

    samplers = tuple(sampler_of(options, temperature) for temperature in temperatures(options.temperature))
    if options.top < 1:
        raise UserError(f"--top is {options.top}; give 1 or more")
    if options.count is not None and options.u is not None:
        raise UserError("--u is for one draw and --count for many: give one of them")
    if options.count is not None and len(samplers) > 1:
        raise UserError("--count draws at one temperature: give one, such as --temperature 0.8")
    engine, request = engine_of(options, numpy_first=True), request_of(options, sampler=samplers[0])
    if options.count is not None:
        found: Histogram = engine.answer(HistogramQuestion(request, options.count, options.seed, options.top))
        note_context(engine, request)
        put_json(histogram_json(found)) if options.json else put(histogram_text(found))
    else:
        drawn: Draw = engine.answer(DrawQuestion(request, samplers, options.u, options.seed, top=options.top))
        note_context(engine, request)
        put_json(draw_json(drawn)) if options.json else put(draw_text(drawn))


# ── one draw ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _segment_json(segment: TokenInterval) -> dict[str, Any]:
    from tui_llm.facts import report

    return {
        **report.candidate_json(segment.candidate),
        "place": segment.place,
        "from": segment.start,
        "to": segment.stop,
    }


def draw_json(draw: Draw) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "model": draw.weights.name,
        "weights": draw.weights.dtype,
        "step": draw.weights.step,
        "u": draw.u,
        "vocabulary": draw.vocabulary,
        "draws": [
            {
                **asdict(landing.sampler),
                "kept": landing.kept,
                "hit": _segment_json(landing.hit),
                "tokens": [_segment_json(segment) for segment in landing.segments],
            }
            for landing in draw.landings
        ],
    }


def draw_text(draw: Draw) -> str:
    from tui_llm.common.display import visible_token
    from tui_llm.facts import report

    parts = [f"u = {draw.u:.4f} on the cumulative distribution, most likely token first"]
    for landing in draw.landings:
        hit = landing.hit
        shown = list(landing.segments)
        if hit.place >= len(shown):
            shown.append(hit)
        rows = [
            (
                "→" if segment.place == hit.place else "",
                f"{segment.place + 1}",
                visible_token(segment.candidate.text),
                f"{segment.candidate.id}",
                f"{segment.candidate.probability:.6f}",
                f"{segment.start:.6f}",
                f"{segment.stop:.6f}",
            )
            for segment in shown
        ]
        how = "greedy: u is not used" if landing.sampler.greedy else f"temperature {landing.sampler.temperature:g}"
        parts.append(
            f"\n{how}, {landing.kept:,} of {draw.vocabulary:,} tokens can be drawn: {visible_token(hit.candidate.text)}\n"
            + report.table(("", "place", "token", "id", "probability", "from", "to"), rows, left=(0, 2))
        )
    return "\n".join(parts)


# ── many draws ───────────────────────────────────────────────────────────────────────────────────────────────────


def _bin_json(one: Bin) -> dict[str, Any]:
    return {
        "drawn": one.count,
        "expected": one.expected,
        "standard_error": one.deviation,
        "off": one.score,
    }


def histogram_json(found: Histogram) -> dict[str, Any]:
    from dataclasses import asdict

    from tui_llm.facts import report

    return {
        "model": found.weights.name,
        "weights": found.weights.dtype,
        "step": found.weights.step,
        **asdict(found.sampler),
        "seed": found.seed,
        "count": found.count,
        "kept": found.kept,
        "chi_squared": found.chi_squared,
        "degrees_of_freedom": found.freedom,
        "chance": found.chance,
        "tokens": [{**report.candidate_json(candidate), **_bin_json(one)} for candidate, one in found.rows],
        "rest": None if found.rest is None else {"kept": found.rest_kept, **_bin_json(found.rest)},
    }


def histogram_text(found: Histogram) -> str:
    from tui_llm.common.display import visible, visible_token
    from tui_llm.facts import report

    rows = [
        (
            visible_token(candidate.text),
            f"{candidate.id}",
            f"{candidate.probability:.6f}",
            f"{one.count:,}",
            f"{one.expected:.1f}",
            f"{one.deviation:.1f}",
            f"{one.score:+.1f}",
        )
        for candidate, one in found.rows
    ]
    if (rest := found.rest) is not None:
        share = rest.expected / found.count
        rows.append(
            (f"({found.rest_kept:,} others)", "", f"{share:.6f}", f"{rest.count:,}", f"{rest.expected:.1f}", "", "")
        )
    text = f"{counted(found.count, 'draw')} with seed {found.seed} from {visible(found.weights.name)}, {counted(found.kept, 'token')} can be drawn\n"
    text += report.table(("token", "id", "probability", "drawn", "expected", "± error", "off"), rows, left=(0,))
    if found.chi_squared is not None:
        text += f"\nχ² = {found.chi_squared:.1f} on {found.freedom} degree{'s' * (found.freedom != 1)} of freedom; fair draws differ as much or more in {found.chance:.1%} of cases"
    return text
