"""`tui-llm backward`: the gradient of a loss for every matrix, and for every token of the text."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.inside import model_json, model_text, note_context
from tui_llm.commands.shared.options import MODEL, json_option, prompt_options, text_argument
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.instruments.backward.question import Backward, GradientNorm


def add(commands: Commands) -> None:
    commands.add(
        "backward",
        "the backward pass: gradient norms of every matrix and of every token of the text",
        backward,
        _add_options,
        more="One backward pass of the loss; nothing is changed. grad_norm is that of a training run: the norm over all parameters, "
        f"before clipping. Needs fp32 weights. {MODEL}",
        examples=(
            'tui-llm backward "There was a little girl named" --target " Lily"',
            'tui-llm backward "Once upon a time, there was a little girl" --whole --json',
        ),
    )


def _add_options(parser: Parser) -> None:
    text_argument(parser, "prompt")
    prompt_options(parser, gradients=True)
    parser.add_argument(
        "--target",
        metavar="TEXT",
        help="the loss is that of this text after the prompt (default: the most likely token)",
    )
    parser.add_argument(
        "--whole",
        action="store_true",
        help="the loss is the mean over the prompt's own tokens, as in a training step on it",
    )
    json_option(parser)


def backward(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared import spaces
    from tui_llm.commands.shared.engine import engine_of, request_of
    from tui_llm.facts.request import Target
    from tui_llm.instruments.backward.question import BackwardQuestion

    if options.whole and options.target is not None:
        raise UserError("--whole has the prompt's own tokens as targets: give it without --target")
    engine = engine_of(options)
    target = Target(likeliest=True) if options.target is None else Target(text=options.target)
    request = request_of(options, target=target)
    found: Backward = engine.answer(BackwardQuestion(request, options.whole))
    note_context(engine, request)
    if options.target is not None:
        spaces.note_target(engine, request)
    put_json(_json(found)) if options.json else put(_text(found))


def _json(found: Backward) -> dict[str, Any]:
    from tui_llm.facts import report

    return {
        **model_json(found.weights),
        "targets": [
            {**report.token_json(token), "loss": loss} for token, loss in zip(found.targets, found.losses, strict=True)
        ],
        "whole": found.whole,
        "loss": found.loss,
        "grad_norm": found.grad_norm,
        "tied": found.tied,
        "norms": [
            {
                "layer": one.layer if one.layer >= 0 else None,
                "kind": one.kind,
                "norm": one.norm,
                "numbers": one.numbers,
            }
            for one in found.norms
        ],
        "tokens": [
            {
                "number": one.number,
                **report.token_json(one.token),
                "gradient_norm": one.norm,
                "gradient_times_input": one.product,
            }
            for one in found.tokens
        ],
    }


def _text(found: Backward) -> str:
    from tui_llm.common.display import token_label
    from tui_llm.facts import report
    from tui_llm.instruments.backward.question import loss_of

    def number(one: GradientNorm) -> str:
        return f"{one.norm:.4f}"

    layers = range(1 + max(one.layer for one in found.norms))
    rows = [(str(layer), *(number(found.cell(layer, kind)) for kind in found.block_kinds)) for layer in layers]
    others = [one for one in found.norms if one.layer < 0]
    tokens = [
        (str(one.number), token_label(one.token.text), f"{one.norm:.4f}", f"{one.product:+.4f}") for one in found.tokens
    ]
    return "\n".join(
        [
            f"{model_text(found.weights)}: {loss_of(found, token_label)} {found.loss:.4f} nats",
            f"grad_norm {found.grad_norm:.4f}: the norm of the gradient over all parameters, as in a training run",
            "norms of the gradient, by block and kind:",
            report.table(("block", *found.block_kinds), rows),
            ", ".join(f"{one.kind} {number(one)}" for one in others)
            + ("; the output head is the token embedding (tied)" if found.tied else ""),
            "by token of the text, for its embedding e:",
            report.table(("token", "text", "‖∂L/∂e‖", "e · ∂L/∂e"), tokens, left=(1,)),
            "the squares of all norms by block and kind add up to grad_norm²; e · ∂L/∂e below 0: a longer e lowers the loss",
        ]
    )
