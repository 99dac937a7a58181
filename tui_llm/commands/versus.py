"""`tui-llm versus`: two models on one prompt."""

from __future__ import annotations

import argparse
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
    from tui_llm.instruments.versus.question import Versus, VersusSide


def add(commands: Commands) -> None:
    commands.add(
        "versus",
        "two models and a prompt → their predictions and losses, side by side",
        versus,
        _add_options,
        more="Prints the next-token table of each model, the KL divergence where their vocabularies are the same, the loss of the "
        "text and of a target in bits and bits per byte, where the models disagree most, and a continuation of each drawn with the "
        "same uniform numbers. A and B: a shipped model, a run, a model folder (a checkpoint of a run is one), a GGUF or checkpoint "
        "file.",
        examples=(
            'tui-llm versus nano my-run "Once upon a time"',
            'tui-llm versus nano ./gpt2 "The cat sat on the" --target " mat" --json',
        ),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("first", metavar="A", help="the first model")
    parser.add_argument("second", metavar="B", help="the second model")
    prompt_argument(parser)
    parser.add_argument("--target", metavar="TEXT", help="also the loss of this text after the prompt; mind the leading space, as in ' mat'")  # fmt: skip
    parser.add_argument("--top", type=whole, default=8, metavar="N", help="rows of each table (default 8)")
    parser.add_argument("--max-tokens", type=whole, default=30, metavar="N", help="tokens of each continuation (default 30)")  # fmt: skip
    parser.add_argument("--seed", type=whole, default=1, metavar="S", help="of the uniform numbers, which both models draw with (default 1)")  # fmt: skip
    device_option(parser)
    text_options(parser)
    sampler_options(parser)
    json_option(parser)


def versus(options: argparse.Namespace) -> None:
    if options.top < 1:
        raise UserError(f"--top is {options.top}; give 1 or more")
    if options.max_tokens < 0:
        raise UserError(f"--max-tokens is {options.max_tokens}; give 0 or more")
    from tui_llm.commands.shared.engine import open_engine, request_of, sampler_of
    from tui_llm.facts.request import Target
    from tui_llm.instruments.versus.question import VersusQuestion
    from tui_llm.llm.hub.lookup import find

    find(options.second)  # before the first one is read, which takes time
    target = None if options.target is None else Target(text=options.target)
    request = request_of(options, sampler=sampler_of(options), target=target)
    engine = open_engine(options.first, options.device, options.weights)
    question = VersusQuestion(request, options.second, options.seed, options.max_tokens, options.top)
    found = engine.answer(question)
    if options.json:
        put_json(as_json(found, options.seed))
        return
    for line in _lines(found, options.seed):
        put(line)


def as_json(found: Versus, seed: int) -> dict[str, Any]:
    from tui_llm.facts.report import finite

    kl = found.divergence
    return {
        "first": _side_json(found.first),
        "second": _side_json(found.second),
        "divergence": None
        if kl is None
        else {
            "kl_bits_first_second": finite(kl.forward),
            "kl_bits_second_first": finite(kl.reverse),
            "total_variation": kl.total_variation,
            "most": [
                {
                    "id": one.id,
                    "text": one.text,
                    "raw_probability_first": one.first,
                    "raw_probability_second": one.second,
                }
                for one in kl.most
            ],
        },
        "text": {
            "bytes": found.bytes,
            "bits_first": finite(found.first_bits),
            "bits_second": finite(found.second_bits),
            "problem": found.problem or None,
            "most": [
                {
                    "text": one.text,
                    "bytes": one.bytes,
                    "bits_first": finite(one.first),
                    "bits_second": finite(one.second),
                }
                for one in found.most
            ],
        },
        "seed": seed,
    }


def _side_json(side: VersusSide) -> dict[str, Any]:
    from tui_llm.facts import report

    read = side.reading
    assert read.distribution is not None
    return {
        **report.source_json(read.weights, read.prompt_ids, read.choices),
        **report.distribution_json(read.distribution),
        "loss": None if read.loss is None else report.loss_json(read.loss) | {"target_bytes": side.target_bytes},
        "continuation": [report.step_json(step) for step in side.continuation],
    }


def _lines(found: Versus, seed: int) -> list[str]:
    from tui_llm.common.display import visible, visible_token
    from tui_llm.common.numbers import percent
    from tui_llm.facts import report
    from tui_llm.instruments.versus.words import bits, continuation, divergence_line, target_line, text_line

    lines: list[str] = []
    for letter, side in (("A", found.first), ("B", found.second)):
        read = side.reading
        assert read.distribution is not None
        lines += [
            f"{letter}: {report.heading(read.weights, read.choices)}",
            report.distribution_text(read.distribution),
            "",
        ]
    lines.append(divergence_line(found.divergence))
    if found.divergence is not None:
        rows = [
            (visible_token(one.text), percent(one.first), percent(one.second), f"{100 * (one.second - one.first):+.2f}")
            for one in found.divergence.most
        ]
        lines.append(report.table(("next token", "raw p, A", "raw p, B", "B − A, points"), rows, left=(0,)))
    lines += ["", text_line(found)]
    if found.most:
        rows = [
            (visible_token(one.text), bits(one.first), bits(one.second), bits(one.second - one.first))
            for one in found.most
        ]
        lines.append(report.table(("piece", "bits, A", "bits, B", "B − A"), rows, left=(0,)))
    if target := target_line(found):
        lines += ["", target]
    lines += ["", f"continuations, drawn with the same uniform numbers (seed {seed}):"]
    for letter, side in (("A", found.first), ("B", found.second)):
        lines.append(f"{letter}  {visible(continuation(side))}")
    return lines
