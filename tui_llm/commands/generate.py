"""`tui-llm generate`: sampled text, streamed."""

from __future__ import annotations

import argparse
import sys

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import MODEL, json_option, prompt_argument, prompt_options, sampler_options, whole
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError


def add(commands: Commands) -> None:
    commands.add(
        "generate",
        "prompt → sampled text",
        generate,
        _add_options,
        more=f"Streams the text to stdout as it is sampled; the same seed, model and settings always give the same text. {MODEL}",
        examples=(
            'tui-llm generate "Once upon a time" --max-tokens 40 --seed 1',
            'tui-llm generate "Once upon a time" --temperature 0',
        ),
    )


def _add_options(parser: Parser) -> None:
    prompt_argument(parser)
    prompt_options(parser)
    parser.add_argument("--max-tokens", type=whole, default=100, metavar="N", help="stop after N tokens (default 100)")
    parser.add_argument("--seed", type=whole, default=1, metavar="S", help="the same seed gives the same text (default 1)")  # fmt: skip
    parser.add_argument("--ignore-end", action="store_true", help="continue after <|endoftext|>")
    sampler_options(parser)
    json_option(parser)


def generate(options: argparse.Namespace) -> None:
    if options.max_tokens < 0:
        raise UserError(f"--max-tokens is {options.max_tokens}; give 0 or more")
    from tui_llm.commands.shared.engine import engine_of, request_of, sampler_of
    from tui_llm.commands.shared.inside import note_context
    from tui_llm.common.display import visible
    from tui_llm.facts import report
    from tui_llm.llm.tokens.token_bytes import token_text

    request = request_of(options, sampler=sampler_of(options))

    engine = engine_of(options, numpy_first=True)
    note_context(engine, request)
    steps = engine.generate(request, seed=options.seed, count=options.max_tokens, stop_at_end=not options.ignore_end)
    if not options.json:
        sys.stdout.write(visible(engine.fed_text(request), newlines=True))
        data, shown = b"", ""
        for step in steps:
            sys.stdout.write(visible(step.text, newlines=True))
            sys.stdout.flush()
            data, shown = data + step.bytes, shown + step.text
        put(visible(token_text(data)[len(shown) :], newlines=True))  # an incomplete character at the end
        return
    made = list(steps)
    ids = [step.id for step in made]
    put_json(
        {
            "model": engine.weights().name,
            "step": engine.weights().step,
            "weights": engine.weights().dtype,
            "prompt_ids": engine.ids(request),
            "ids": ids,
            "text": b"".join(step.bytes for step in made).decode("utf-8", "replace"),
            "seed": options.seed,
            "steps": [report.step_json(step) for step in made],
        }
    )
