"""`tui-llm compare-models`: two or three models on one prompt."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import (
    device_option,
    json_option,
    prompt_argument,
    sampler_options,
    text_options,
    whole,
)
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.instruments.compare_models.question import ComparedModel, ModelComparison

MORE = (
    "Prints the next-token table of each model, the KL divergence of each two in both directions (in bits; none where the "
    "vocabularies differ), the loss of the text and of a target in bits and bits per byte, where the models disagree most, and a "
    "continuation of each drawn with the same uniform numbers. A, B and C: a shipped model, a run, a model folder (a checkpoint of a "
    "run is one), a GGUF or checkpoint file; each with a weight format behind it if wanted, as in nano:int8."
)


def add(commands: Commands) -> None:
    commands.add(
        "compare-models",
        "two or three models and a prompt → their predictions, KL and losses, side by side",
        compare_models,
        _add_options,
        more=MORE,
        examples=(
            'tui-llm compare-models nano my-run "Once upon a time"',
            'tui-llm compare-models nano nano:int8 "Once upon a time" --json',
            'tui-llm compare-models nano assistant preferred "Where do you live?"',
            'tui-llm compare-models nano ./gpt2 "The cat sat on the" --target " mat"',
        ),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("first", metavar="A", help="the first model")
    parser.add_argument("second", metavar="B", help="the second model")
    parser.add_argument("third", metavar="C", nargs="?", help="a third model, if wanted")
    shared_options(parser)
    parser.set_defaults(text_after="third")


def shared_options(parser: Parser) -> None:
    prompt_argument(parser)
    parser.add_argument("--target", metavar="TEXT", help="also the loss of this text after the prompt; mind the leading space, as in ' mat'")  # fmt: skip
    parser.add_argument("--top", type=whole, default=8, metavar="N", help="rows of each table (default 8)")
    parser.add_argument("--max-tokens", type=whole, default=30, metavar="N", help="tokens of each continuation (default 30)")  # fmt: skip
    parser.add_argument("--seed", type=whole, default=1, metavar="S", help="of the uniform numbers, which all models draw with (default 1)")  # fmt: skip
    device_option(parser)
    text_options(parser)
    sampler_options(parser)
    json_option(parser)


def compare_models(options: argparse.Namespace) -> None:
    third = () if options.third is None else (options.third,)
    found = compared(options, options.first, (options.second, *third))
    if options.json:
        put_json(as_json(found, options.seed))
        return
    for line in lines(found, options.seed):
        put(line)


def compared(options: argparse.Namespace, first: str, others: tuple[str, ...]) -> ModelComparison:
    """Raises `UserError`."""
    if options.top < 1:
        raise UserError(f"--top is {options.top}; give 1 or more")
    if options.max_tokens < 0:
        raise UserError(f"--max-tokens is {options.max_tokens}; give 0 or more")
    from tui_llm.commands.shared.engine import open_engine, request_of, sampler_of, target_of
    from tui_llm.instruments.compare_models.question import CompareModelsQuestion
    from tui_llm.llm.hub.lookup import find, with_weights

    for other in others:
        find(with_weights(other)[0])  # before the first one is read, which takes time
    request = request_of(options, sampler=sampler_of(options), target=target_of(options.target))
    name, weights = with_weights(first)
    engine = open_engine(name, options.device, weights or options.weights)
    # A format behind the first model is its own; the others are in that of --weights
    specs = tuple(other if with_weights(other)[1] else f"{other}:{options.weights}" for other in others)
    return engine.answer(CompareModelsQuestion(request, specs, options.seed, options.max_tokens, options.top))


def as_json(found: ModelComparison, seed: int) -> dict[str, Any]:
    from tui_llm.facts.report import finite
    from tui_llm.instruments.compare_models.words import LETTERS

    first = found.divergence(0, 1)
    return {
        "kl": None if first is None else finite(first.forward * math.log(2)),
        "kl_unit": "nats, KL(A ‖ B) of the raw probabilities",
        "divergences": [
            {
                "p": LETTERS[one.first],
                "q": LETTERS[one.second],
                "kl_p_q_bits": finite(one.forward),
                "kl_q_p_bits": finite(one.reverse),
                "kl_p_q_nats": finite(one.forward * math.log(2)),
                "kl_q_p_nats": finite(one.reverse * math.log(2)),
                "total_variation": one.total_variation,
            }
            for one in found.divergences
        ],
        "models": [side_json(side) for side in found.models],
        "candidates": [
            {"id": one.id, "text": one.text, "raw_probabilities": list(one.raw_probabilities)}
            for one in found.candidates
        ],
        "differences": [
            {"id": one.id, "text": one.text, "raw_probabilities": list(one.raw_probabilities)}
            for one in found.differences
        ],
        "text": {
            "bytes": found.bytes,
            "bits": [finite(one) for one in found.bits],
            "problem": found.problem or None,
            "most": [
                {"text": one.text, "bytes": one.bytes, "bits": [finite(cost) for cost in one.bits]}
                for one in found.most
            ],
        },
        "seed": seed,
    }


def side_json(side: ComparedModel) -> dict[str, Any]:
    from tui_llm.facts import report

    read = side.reading
    assert read.distribution is not None
    return {
        **report.source_json(read.weights, read.prompt_ids, read.choices),
        **report.distribution_json(read.distribution),
        "loss": None if read.loss is None else report.loss_json(read.loss) | {"target_bytes": side.target_bytes},
        "continuation": [report.step_json(step) for step in side.continuation],
    }


def lines(found: ModelComparison, seed: int) -> list[str]:
    from tui_llm.common.display import visible, visible_token
    from tui_llm.common.numbers import percent
    from tui_llm.facts import report
    from tui_llm.instruments.compare_models.words import (
        LETTERS,
        bits,
        continuation,
        divergence_lines,
        target_line,
        text_line,
    )

    made: list[str] = []
    letters = LETTERS[: len(found.models)]
    for letter, side in zip(letters, found.models, strict=True):
        read = side.reading
        assert read.distribution is not None
        made += [
            f"{letter}: {report.heading(read.weights, read.choices)}",
            report.distribution_text(read.distribution),
            "",
        ]
    made += divergence_lines(found)
    if found.differences:
        rows = [
            (
                visible_token(one.text),
                *("–" if p is None else percent(p) for p in one.raw_probabilities),
                f"{100 * one.difference:.2f}",
            )
            for one in found.differences
        ]
        head = ("next token", *(f"raw p, {letter}" for letter in letters), "max − min, points")
        made.append(report.table(head, rows, left=(0,)))
    made += ["", text_line(found)]
    if found.most:
        rows = [
            (visible_token(one.text), *map(bits, one.bits), bits(max(one.bits) - min(one.bits))) for one in found.most
        ]
        made.append(report.table(("piece", *(f"bits, {letter}" for letter in letters), "max − min"), rows, left=(0,)))
    if target := target_line(found):
        made += ["", target]
    made += ["", f"continuations, drawn with the same uniform numbers (seed {seed}):"]
    made += [f"{letter}  {visible(continuation(side))}" for letter, side in zip(letters, found.models, strict=True)]
    return made
