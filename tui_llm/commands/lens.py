"""`tui-llm lens`: the logit lens and the tuned lens, the prediction after each layer."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.inside import TOKEN, model_json, model_text, place_json, token_number, window
from tui_llm.commands.shared.options import MODEL, json_option, prompt_options, text_argument, whole
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.instruments.lens.question import Lens, LensCell, LensGrid


def add(commands: Commands) -> None:
    commands.add(
        "lens",
        "logit lens or tuned lens: the prediction after each layer",
        lens,
        _add_options,
        more="Prints one row for the embedding and one after each block, numbered from 0: the final norm and output head applied "
        "to the residual stream there, as if the model ended there. --tuned: after an affine translator per layer that was fitted to "
        f"the model; nano has one, fit-lens fits one to any other. {MODEL}",
        examples=(
            'tui-llm lens "The cat sat on the"',
            'tui-llm lens "The cat sat on the" --target " mat"',
            'tui-llm lens "Once upon a time" --grid --tuned',
        ),
    )


def _add_options(parser: Parser) -> None:
    text_argument(parser, "prompt")
    prompt_options(parser)
    parser.add_argument("--token", type=whole, metavar="N", help="the prediction after " + TOKEN)
    parser.add_argument(
        "--target",
        metavar="TEXT",
        help="follow this token, as in ' mat' (default: the text's own next token, or the most likely one)",
    )
    parser.add_argument(
        "--grid", action="store_true", help="all tokens: the likeliest token of each layer after each token"
    )
    parser.add_argument(
        "--tuned", action="store_true", help="the tuned lens (arXiv:2303.08112) instead of the logit lens"
    )
    parser.add_argument("--top", type=whole, default=5, metavar="N", help="how many tokens to list (default 5)")
    json_option(parser)


def lens(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared import spaces
    from tui_llm.commands.shared.engine import engine_of, request_of, target_of
    from tui_llm.instruments.lens.question import LensGridQuestion, LensQuestion

    if options.top < 1:
        raise UserError(f"--top is {options.top}; give 1 or more")
    if options.grid and options.token is not None:
        raise UserError("--grid shows all tokens, --token only one: give one of them")
    engine = engine_of(options)
    request, token = request_of(options, target=target_of(options.target)), token_number(options, engine)
    if options.grid:
        grid: LensGrid = engine.answer(LensGridQuestion(request, top=options.top, tuned=options.tuned))
        spaces.note_target(engine, request)
        put_json(_grid_json(grid)) if options.json else put(_grid_text(grid))
        return
    found: Lens = engine.answer(LensQuestion(request, token, options.top, options.tuned))
    if token is None:
        spaces.note_target(engine, request)
    put_json(_lens_json(found)) if options.json else put(_lens_text(found))


def _lens_json(found: Lens) -> dict[str, Any]:
    from tui_llm.facts import report

    return {
        **model_json(found.weights),
        **place_json(found.place),
        "lens": "tuned" if found.tuned else "logit",
        "target": report.token_json(found.target),
        "target_is": found.chosen,
        "rows": [
            {
                "layer": row.layer,
                "top": [{**report.token_json(g.token), "probability": g.probability} for g in row.guesses],
                "target_probability": row.probability,
                "target_rank": row.rank,
                "entropy": row.entropy,
                "divergence": report.finite(row.divergence),
            }
            for row in found.rows
        ],
    }


CHOSEN = {"asked": "", "next": ", the text's own next token", "likeliest": ", the model's likeliest"}


def _applied(tuned: bool) -> str:
    translator = "a translator that was fitted to the model, then " if tuned else ""
    return f"{translator}the final norm and output head applied to the residual stream there"


def _lens_text(found: Lens) -> str:
    from tui_llm.common.display import token_label
    from tui_llm.common.numbers import percent
    from tui_llm.facts import report
    from tui_llm.instruments.lens.question import lens_name

    place = found.place
    rows = [
        (
            "embedding" if row.layer is None else str(row.layer),
            percent(row.probability),
            str(row.rank),
            f"{row.entropy:.3f}",
            f"{row.divergence:.3f}",
            "  ".join(f"{token_label(g.token.text)} {percent(g.probability)}" for g in row.guesses),
        )
        for row in found.rows
    ]
    return "\n".join(
        [
            f"{model_text(found.weights)}: after token {place.number}, {token_label(place.token.text)}; "
            f"target {token_label(found.target.text)}{CHOSEN[found.chosen]}",
            *window(place, found.weights),
            report.table(("after block", "p(target)", "rank", "entropy", "KL", "likeliest"), rows, left=(0, 5)),
            f"{lens_name(found.tuned)}; each row: {_applied(found.tuned)}; the last row is the model's prediction",
            "entropy in nats; KL: divergence of the row from the model's prediction, in nats; 0 = identical",
        ]
    )


def _grid_json(found: LensGrid) -> dict[str, Any]:
    from tui_llm.facts import report
    from tui_llm.instruments.lens.question import layer_of

    def cell(one: LensCell) -> dict[str, Any]:
        return {
            "top": [{**report.token_json(g.token), "probability": g.probability} for g in one.guesses],
            "logit": one.logit,
            "target_probability": one.probability,
            "target_rank": one.rank,
            "entropy": one.entropy,
        }

    return {
        **model_json(found.weights),
        "lens": "tuned" if found.tuned else "logit",
        "first": found.place.number,
        "tokens": [report.token_json(found.token(at)) for at in range(len(found.targets))],
        "targets": [report.token_json(token) for token in found.targets],
        "target_is": found.chosen,
        "rows": [{"layer": layer_of(at), "cells": [cell(one) for one in row]} for at, row in enumerate(found.rows)],
    }


def _grid_text(found: LensGrid) -> str:
    from tui_llm.common.display import fit, token_label
    from tui_llm.common.numbers import percent
    from tui_llm.facts import report
    from tui_llm.instruments.lens.question import layer_of, lens_name

    rows = [
        (
            str(found.place.number + at),
            token_label(found.token(at).text),
            token_label(target.text),
            str(found.rows[-1][at].rank),
            *(
                f"{fit(token_label(row[at].guesses[0].token.text), 12)} {percent(row[at].guesses[0].probability):>8}"
                for row in found.rows
            ),
        )
        for at, target in enumerate(found.targets)
    ]
    names = (
        "token",
        "text",
        "target",
        "rank",
        *("embedding" if (layer := layer_of(at)) is None else f"block {layer}" for at in range(len(found.rows))),
    )
    return "\n".join(
        [
            f"{model_text(found.weights)}: the likeliest token after each token (down) and block (across), with its probability",
            *window(found.place, found.weights),
            report.table(names, rows, left=tuple(at for at in range(len(names)) if at not in (0, 3))),
            f"{lens_name(found.tuned)}; each cell: {_applied(found.tuned)}; the last column is the model's prediction, and rank is the "
            "target's there",
        ]
    )
