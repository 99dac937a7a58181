"""Text and prompts: tokens, examples, logits, softmax, loss, generate."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from tui_llm.commands.engine import engine_of, tokenizer_of
from tui_llm.commands.output import put, put_json
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.facts import report
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Request, Target
from tui_llm.facts.sampler import SamplerSettings

if TYPE_CHECKING:
    pass


def _settings(options: argparse.Namespace) -> SamplerSettings:
    return SamplerSettings(options.temperature, options.top_k, options.top_p, options.min_p, options.repetition_penalty)


# ── text → tokens ────────────────────────────────────────────────────────────────────────────────────────────────


def tokens(options: argparse.Namespace) -> None:
    from tui_llm.session.tokenization import tokenization

    if options.compare:
        from tui_llm.commands.tokens import compared

        compared(options)
        return
    vocabulary = tokenizer_of(options.tokenizer)
    ids = vocabulary.encode(options.text, allow_special=options.allow_special)
    made = tokenization(vocabulary, ids)
    put_json(report.tokens_json(made)) if options.json else put(report.tokens_text(made))


def examples(options: argparse.Namespace) -> None:
    if options.loss:
        from tui_llm.commands.tokens import examples_with_loss

        examples_with_loss(options)
        return
    from tui_llm.common.display import visible_token
    from tui_llm.llm.data.examples import pairs
    from tui_llm.llm.tokens.token_bytes import token_text
    from tui_llm.session.tokenization import bytes_of

    vocabulary = tokenizer_of(options.tokenizer)
    ids = vocabulary.encode(options.text, allow_special=options.allow_special)

    def text(*ids: int) -> str:
        return token_text(b"".join(bytes_of(vocabulary, id) for id in ids))

    count = max(0, len(ids) - 1)
    if options.json:
        rows = [
            {"input": list(seen), "target": target, "input_text": text(*seen), "target_text": text(target)}
            for seen, target in pairs(ids)
        ]
        put_json({"count": count, "tokenizer": vocabulary.name, "pairs": rows})
        return
    put(
        f"{len(ids):,} tokens in {visible(vocabulary.name)} make {count:,} training pairs: after each token, the one to predict"
    )
    for seen, target in pairs(ids):
        put(f"{visible_token(text(*seen))}  →  {visible_token(text(target))}")


def _read(options: argparse.Namespace, **more: Any) -> Reading:
    request = Request(
        prompt=options.prompt, allow_special=options.allow_special, start_token=options.bos, chat=options.chat, **more
    )
    reading = engine_of(options).read(request)
    if reading.problem:
        hint = " (--bos)" if not reading.prompt_ids else ""
        raise UserError(reading.problem + hint)
    return reading


def logits(options: argparse.Namespace) -> None:
    from tui_llm.commands import tables

    tables.logits(options, _settings(options))


def softmax(options: argparse.Namespace) -> None:
    from tui_llm.commands import tables

    tables.softmax(options, _settings(options))


def loss(options: argparse.Namespace) -> None:
    reading = _read(options, target=Target(text=options.target), top=1)
    assert reading.loss is not None
    if reading.loss.problem:
        raise UserError(reading.loss.problem)
    if options.json:
        put_json(report.loss_json(reading))
        return
    put(report.heading(reading))
    put(report.loss_text(reading.loss))


def generate(options: argparse.Namespace) -> None:
    if options.max_tokens < 0:
        raise UserError(f"--max-tokens is {options.max_tokens}; give 0 or more")
    request = Request(
        prompt=options.prompt,
        allow_special=options.allow_special,
        start_token=options.bos,
        chat=options.chat,
        sampler=_settings(options),
    )
    from tui_llm.llm.tokens.token_bytes import token_text

    engine = engine_of(options)
    steps = engine.generate(request, seed=options.seed, count=options.max_tokens, stop_at_end=not options.ignore_end)
    if not options.json:
        sys.stdout.write(visible(engine.fed_text(request), newlines=True))
        data, shown = b"", ""
        for step in steps:
            sys.stdout.write(visible(step.text, newlines=True))
            sys.stdout.flush()
            data, shown = data + step.bytes, shown + step.text
        put(visible(token_text(data)[len(shown) :], newlines=True))  # bytes that no later token completed
        return
    made = list(steps)
    ids = [step.id for step in made]
    put_json(
        {
            "model": engine.weights().name,
            "step": engine.weights().step,
            "weights": engine.weights().kept_as,
            "prompt_ids": engine.ids(request),
            "ids": ids,
            "text": engine.tokenizer.decode(ids),
            "seed": options.seed,
            "steps": [report.step_json(step) for step in made],
        }
    )  # fmt: skip
