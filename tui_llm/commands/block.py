"""`tui-llm block`: what one block computes for one token."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.inside import TOKEN, model_json, model_text, place_json, token_number, window
from tui_llm.commands.shared.options import MODEL, json_option, prompt_options, text_argument, whole
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tui_llm.instruments.block.question import BlockFlow, NormStatistics, Push, PushedToken


def add(commands: Commands) -> None:
    commands.add(
        "block",
        "what one block computes for one token: norms, heads with their top keys, neurons",
        block,
        _add_options,
        more="Heads and neurons come with the tokens that what they add to the residual stream promotes and suppresses, through the "
        f"final norm (its scale frozen) and the output head. Reduced weights are dequantized. {MODEL}",
        examples=(
            'tui-llm block "Once upon a time, there was a little girl named" --layer 3',
            'tui-llm block "The cat sat on the" --layer 0 --token 2 --json',
        ),
    )


def _add_options(parser: Parser) -> None:
    text_argument(parser, "prompt")
    prompt_options(parser)
    parser.add_argument(
        "--layer", type=whole, default=0, metavar="L", help="block number L, from 0, as in head L.3 (default 0)"
    )
    parser.add_argument("--token", type=whole, metavar="N", help=TOKEN)
    parser.add_argument(
        "--keys", type=whole, default=5, metavar="N", help="how many keys of each head to list (default 5)"
    )
    parser.add_argument("--neurons", type=whole, default=10, metavar="N", help="how many neurons to list (default 10)")
    json_option(parser)


def block(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import engine_of, request_of
    from tui_llm.instruments.block.question import BlockQuestion

    if min(options.keys, options.neurons) < 1:
        raise UserError("--keys and --neurons are 1 or more")
    engine = engine_of(options)
    number = token_number(options, engine)
    found: BlockFlow = engine.answer(
        BlockQuestion(request_of(options), options.layer, number, options.keys, options.neurons)
    )
    put_json(_json(found)) if options.json else put(_text(found))


def _json(found: BlockFlow) -> dict[str, Any]:
    from tui_llm.facts import report

    def norm(one: NormStatistics) -> dict[str, float | None]:
        return {"mean": one.mean, "sigma": one.sigma}

    def tokens(pushed: Sequence[PushedToken]) -> list[dict[str, Any]]:
        return [{**report.token_json(one.token), "logit": one.logit} for one in pushed]

    def push(one: Push) -> dict[str, Any]:
        return {"promoted": tokens(one.promoted), "suppressed": tokens(one.suppressed)}

    return {
        **model_json(found.weights),
        **place_json(found.place),
        "layer": found.layer,
        "residual_norms": list(found.norms),
        "norm1": norm(found.norm1),
        "heads": [
            {
                "head": head.head,
                "query_norm": head.query_norm,
                "keys": [
                    {
                        "number": key.number,
                        **report.token_json(key.token),
                        "score": report.finite(key.score),
                        "weight": key.weight,
                        "value_norm": key.value_norm,
                    }
                    for key in head.keys
                ],
                "output_norm": head.norm,
                **push(head.push),
            }
            for head in found.heads
        ],
        "attention_norm": found.attention,
        "middle_norm": found.middle,
        "norm2": norm(found.norm2),
        "neurons": [
            {
                "neuron": one.number,
                "hidden": one.hidden,
                "activation": one.activation,
                "output_norm": one.norm,
                **push(one.push),
            }
            for one in found.neurons
        ],
        "neuron_count": found.hidden,
        "active_neurons": found.active,
        "mlp_norm": found.mlp,
    }


def _text(found: BlockFlow) -> str:
    from tui_llm.common.display import token_label
    from tui_llm.common.numbers import percent
    from tui_llm.facts import report

    def pushed(push: Push) -> tuple[str, str]:
        return tuple(  # type: ignore[return-value]
            " ".join(f"{token_label(one.token.text)} {one.logit:+.2f}" for one in tokens)
            for tokens in (push.promoted[:3], push.suppressed[:2])
        )

    heads = [
        (
            f"{found.layer}.{head.head}",
            "  ".join(f"{token_label(key.token.text)} {percent(key.weight)} ({key.score:.2f})" for key in head.keys),
            f"{head.norm:.3f}",
            *pushed(head.push),
        )
        for head in found.heads
    ]
    neurons = [
        (str(one.number), f"{one.hidden:.3f}", f"{one.activation:.3f}", f"{one.norm:.3f}", *pushed(one.push))
        for one in found.neurons
    ]
    place = found.place
    return "\n".join(
        [
            f"{model_text(found.weights)}: block {found.layer} at token {place.number}, {token_label(place.token.text)}",
            *window(place, found.weights),
            "norm of the residual stream: "
            + ", ".join(
                f"{f'after block {at - 1}' if at else 'embedding'} {norm:.3f}" for at, norm in enumerate(found.norms)
            ),
            _statistics(1, found.norm1),
            report.table(("head", "attends to (q·k ÷ √D)", "norm", "promotes", "suppresses"), heads, left=(0, 1, 3, 4)),
            f"attention adds a vector of norm {found.attention:.3f}; the stream's is then {found.middle:.3f}",
            _statistics(2, found.norm2),
            f"MLP: {found.active:,} of {found.hidden:,} neurons are above 0 before {found.activation}; those that add most:",
            report.table(("neuron", "before", "after", "norm", "promotes", "suppresses"), neurons, left=(4, 5)),
            f"the MLP adds a vector of norm {found.mlp:.3f}; the stream's is then {found.norms[found.layer + 1]:.3f}",
            "promotes, suppresses: what it adds to tokens' logits, through the final norm (σ frozen) and the output head",
        ]
    )


def _statistics(number: int, one: NormStatistics) -> str:
    if one.mean is None:
        return f"{one.name} {number}: root mean square {one.sigma:.4f}"
    return f"{one.name} {number}: mean {one.mean:.4f}, σ {one.sigma:.4f}"
