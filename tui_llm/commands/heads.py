"""`tui-llm heads`: the head detectors' scores of every head."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.inside import model_json, model_text, note_context
from tui_llm.commands.shared.options import (
    DEFAULT_MODEL,
    MODEL,
    json_option,
    prompt_options,
    refuse_ignored,
    text_argument,
    whole,
)
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.instruments.heads.question import Heads


def add(commands: Commands) -> None:
    commands.add(
        "heads",
        "head detectors: induction, previous-token and duplicate-token scores of every head",
        heads,
        _add_options,
        more="Prints how much attention each head pays to the previous token, to an earlier occurrence of the current token, and to the "
        "token after that one (induction), on random tokens that are repeated once. With a text: on that text. "
        f"{MODEL}",
        examples=(
            "tui-llm heads",
            "tui-llm heads --seed 2 --length 20 --json",
            'tui-llm heads "The cat sat on the mat. The cat sat on the"',
        ),
    )


def _add_options(parser: Parser) -> None:
    from tui_llm.facts.head_scores import LENGTH

    about = "the text, in quotes where it has spaces (default: repeated random tokens)"
    text_argument(parser, "prompt", about, optional=True)
    prompt_options(parser)
    parser.add_argument("--seed", type=whole, metavar="S", help="of the random tokens (default 1)")
    parser.add_argument("--length", type=whole, metavar="N", help=f"random tokens, before they are repeated (default {LENGTH}; fewer in a short context)")  # fmt: skip
    parser.add_argument("--run", metavar="RUN", help="instead of scoring a model: what was recorded at each evaluation of this run")  # fmt: skip
    json_option(parser)


TEXT_USUAL: dict[str, object] = {"bos": False, "allow_special": False, "chat": False}
MODEL_USUAL: dict[str, object] = {"model": DEFAULT_MODEL, "device": "auto", "weights": "fp32", "kernel": ""}


def heads(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import engine_of, request_of
    from tui_llm.facts.head_scores import LENGTH
    from tui_llm.facts.request import Request
    from tui_llm.instruments.heads.question import HeadsQuestion

    text = options.prompt is not None
    if options.run is not None:
        if text or options.seed is not None or options.length is not None:
            raise UserError("--run prints what was recorded; leave out text, --seed and --length")
        refuse_ignored(options, {**MODEL_USUAL, **TEXT_USUAL}, "--run prints what was recorded")
        _of_run(options)
        return
    for name, value in (("--seed", options.seed), ("--length", options.length)):
        if text and value is not None:
            raise UserError(f"{name} is for random tokens; leave it out, or the text")
    if not text:
        refuse_ignored(options, TEXT_USUAL, "random tokens are no text")
    engine = engine_of(options)
    request = request_of(options) if text else Request()
    seed = 1 if options.seed is None else options.seed
    length = LENGTH if options.length is None else options.length
    found: Heads = engine.answer(HeadsQuestion(request, seed, length, own_text=text))
    note_context(engine, request)
    put_json(_heads_json(found)) if options.json else put(_heads_text(found))


def _of_run(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from tui_llm.facts import report
    from tui_llm.facts.head_scores import SCORES, best
    from tui_llm.training.run import head_readings
    from tui_llm.training.run.run import find

    run = find(options.run)
    found = head_readings.evaluations(run)
    if options.json:
        evaluations = [{"step": one.step, "heads": [asdict(head) for head in one.scores]} for one in found]
        put_json({"run": run.name, "evaluations": evaluations})
        return
    if not found:
        raise UserError(head_readings.NONE_YET)
    rows = []
    for one in found:
        tops = [best(one.scores, score) for score in SCORES]
        cells = (f"{top.name}: {top.of(score):.3f}" if top else "–" for top, score in zip(tops, SCORES, strict=True))
        rows.append((f"{one.step:,}", *cells))
    put(report.table(("step", *SCORES), rows, left=(1, 2, 3)))


def _heads_json(found: Heads) -> dict[str, Any]:
    from dataclasses import asdict

    question, own = found.question, found.question.own_text
    return {
        **model_json(found.weights),
        "tokens": "text" if own else "random",
        "seed": None if own else question.seed,
        "length": None if own else found.length,
        "sequences": 1 if own else found.sequences,
        "counts": asdict(found.counts),
        "heads": [asdict(head) for head in found.heads],
    }


def _heads_text(found: Heads) -> str:
    from tui_llm.common.display import visible_token
    from tui_llm.facts import report
    from tui_llm.facts.head_scores import MEANINGS, SCORES, best

    counts, start = found.counts, "" if found.start is None else f", after {visible_token(found.start.text)}"
    if found.question.own_text:
        source = f"on the text: {counts.tokens:,} tokens"
    else:
        source = (
            f"on {found.sequences} × {found.length} random tokens (seed {found.question.seed}), repeated once{start}"
        )
    lines = [f"{model_text(found.weights)}: {source}"]
    for score in SCORES:
        top = best(found.heads, score)
        if top is None:
            lines.append(f"{score}: no token occurs twice in this text")
        else:
            lines.append(f"{score}: strongest in head {top.name}, {top.of(score):.3f}; {MEANINGS[score]}")
    rows = [(head.name, *(_number(head.of(score)) for score in SCORES)) for head in found.heads]
    return "\n".join([*lines, report.table(("head", *SCORES), rows, left=(0,))])


def _number(score: float | None) -> str:
    return "–" if score is None else f"{score:.3f}"
