"""`tui-llm chat`: a conversation with a model that has a chat template."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import json_option, model_options, sampler_options, weights_option, whole
from tui_llm.commands.shared.output import put, put_json
from tui_llm.commands.shared.streams import print_error, read_line
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.engine import PipelineEngine
    from tui_llm.facts.chat import ChatMessage
    from tui_llm.facts.prediction import GeneratedToken
    from tui_llm.instruments.chat.question import ChatPart

HELP = "Ctrl+C stops an answer; Ctrl+D ends"


def add(commands: Commands) -> None:
    commands.add(
        "chat",
        "messages → answers of a model that has a chat template",
        chat,
        _add_options,
        more="Formats the conversation with the model's own chat template and streams the answers. Messages are arguments, or lines "
        f"of standard input. {HELP}. A base model such as nano is refused: `tui-llm train PAIRS.jsonl --instruct --from nano` makes "
        "a copy that can be asked.",
        examples=("tui-llm chat --model assistant", 'tui-llm chat "Who are you?" --model assistant --tokens --raw'),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("messages", nargs="*", metavar="MESSAGE", help="messages to answer one after another (default: the lines of standard input)")  # fmt: skip
    model_options(parser)
    weights_option(parser)
    parser.add_argument("--max-tokens", type=whole, default=200, metavar="N", help="stop an answer after N tokens (default 200)")  # fmt: skip
    parser.add_argument("--seed", type=whole, default=1, metavar="S", help="of the first answer; each further one has the next (default 1)")  # fmt: skip
    parser.add_argument("--tokens", action="store_true", help="after each answer, its tokens with raw p, ln p and bits")
    parser.add_argument("--raw", action="store_true", help="before each answer, the text that the model is fed")
    sampler_options(parser)
    json_option(parser)


def chat(options: argparse.Namespace) -> None:
    if options.max_tokens < 1:
        raise UserError(f"--max-tokens is {options.max_tokens}; give 1 or more")
    from tui_llm.commands.shared.engine import engine_of, sampler_of
    from tui_llm.facts.chat import ChatMessage
    from tui_llm.facts.request import Request
    from tui_llm.instruments.chat.question import ChatQuestion, text_of

    request = Request(sampler=sampler_of(options))
    engine = engine_of(options)
    engine.answer(ChatQuestion(request, (ChatMessage("user", "?"),), count=0))  # refuses a model without a template
    messages: list[ChatMessage] = []
    for number, text in enumerate(_messages(options)):
        messages.append(ChatMessage("user", text))
        question = ChatQuestion(request, tuple(messages), seed=options.seed + number)
        part, tokens, stopped = _answer(engine, question, options)
        messages.append(ChatMessage("assistant", text_of(tokens)))
        if options.json:
            put_json(as_json(part, tokens, stopped, question.seed))
        else:
            _report(part, tokens, stopped, options.tokens)


def _messages(options: argparse.Namespace) -> Iterator[str]:
    if options.messages:
        yield from options.messages
        return
    asks = sys.stdin.isatty() and not options.json
    if asks:
        put(HELP)
    reconfigure = getattr(sys.stdin, "reconfigure", None)
    if reconfigure is not None:  # the same in every locale: a pipe's text is UTF-8 or refused
        reconfigure(encoding="utf-8", errors="replace" if sys.stdin.isatty() else "strict")
    while True:
        if asks:
            sys.stdout.write("> ")
            sys.stdout.flush()
        line = read_line(sys.stdin, "the messages")
        if not line:
            return
        if line.strip():
            yield line.rstrip("\r\n")


def _answer(
    engine: PipelineEngine, question: Any, options: argparse.Namespace
) -> tuple[ChatPart, tuple[GeneratedToken, ...], bool]:
    """Draws the answer token by token and prints it as it is drawn. Returns the last part, all tokens, and whether
    Ctrl+C stopped it."""
    import dataclasses

    from tui_llm.common.display import visible

    part = engine.answer(dataclasses.replace(question, count=0))
    if options.raw and not options.json:
        put(visible(part.fed_text, newlines=True))
    if part.plain_words:
        print_error(visible(part.plain_words))
    tokens: tuple[GeneratedToken, ...] = ()
    with suppress(KeyboardInterrupt):
        while len(tokens) < options.max_tokens:
            part = engine.answer(dataclasses.replace(question, answer=tuple(one.id for one in tokens)))
            tokens += part.tokens
            if part.ended:
                return part, tokens, False
            if not options.json:
                sys.stdout.write("".join(visible(one.text, newlines=True) for one in part.tokens))
                sys.stdout.flush()
        return part, tokens, False
    return part, tokens, True


def _report(part: ChatPart, tokens: tuple[GeneratedToken, ...], stopped: bool, table: bool) -> None:
    from tui_llm.common.display import visible_token
    from tui_llm.common.numbers import counted, percent
    from tui_llm.facts import report
    from tui_llm.instruments.chat.question import log_p
    from tui_llm.llm.predict.units import bits
    from tui_llm.llm.tokens.token_bytes import token_text

    total = bits(-sum(map(log_p, tokens)))
    end = " · stopped" if stopped else "" if part.ended else " · cut by --max-tokens"
    forgotten = f" · the first {counted(part.forgotten, 'token')} no longer fit the context" if part.forgotten else ""
    put("")
    put(f"({counted(len(tokens), 'token')}, sum of −log2 raw p {total + 0.0:.2f} bits{end}{forgotten})")
    if table:
        rows = [
            (visible_token(token_text(one.bytes)), percent(one.raw_probability), f"{log_p(one) + 0.0:.4f}".replace("-", "−"), f"{bits(-log_p(one)) + 0.0:.4f}")
            for one in tokens
        ]  # fmt: skip
        put(report.table(("token", "raw p", "ln raw p", "bits"), rows, left=(0,)))


def as_json(part: ChatPart, tokens: tuple[GeneratedToken, ...], stopped: bool, seed: int) -> dict[str, Any]:
    from tui_llm.facts import report
    from tui_llm.instruments.chat.question import log_p, text_of
    from tui_llm.llm.predict.units import bits

    return {
        "model": part.weights.name,
        "step": part.weights.step,
        "fed_text": part.fed_text,
        "fed_ids": list(part.fed_ids),
        "forgotten": part.forgotten,
        "typed_special": list(part.typed_special),
        "answer": text_of(tokens),
        "tokens": [
            report.step_json(one)
            | {"log_raw_probability": report.finite(log_p(one)), "bits": report.finite(bits(-log_p(one)))}
            for one in tokens
        ],
        "ended": part.ended,
        "stopped": stopped,
        "seed": seed,
    }
