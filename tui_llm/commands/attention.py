"""`tui-llm attention`: the attention weights of one token."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.inside import TOKEN, model_json, model_text, place_json, token_number, window
from tui_llm.commands.shared.options import MODEL, json_option, prompt_options, text_argument, whole
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.instruments.attention.question import AttentionMap, AttentionRow


def add(commands: Commands) -> None:
    commands.add(
        "attention",
        "text → the attention weights of one token in each head",
        attention,
        _add_options,
        more=f"Prints softmax(q · k ÷ √D) from one token to each earlier one: of one head, or the mean of several. "
        f"Layers and heads are numbered from 0. {MODEL}",
        examples=(
            'tui-llm attention "The cat sat on the"',
            'tui-llm attention "The cat sat on the" --layer 1 --head 2',
        ),
    )


def _add_options(parser: Parser) -> None:
    text_argument(parser, "prompt")
    prompt_options(parser)
    parser.add_argument("--token", type=whole, metavar="N", help="the query: " + TOKEN)
    parser.add_argument("--layer", type=whole, metavar="L", help="of this layer, from 0 (default: the mean over all heads)")  # fmt: skip
    parser.add_argument("--head", type=_head, metavar="H", help="of this head of the layer, from 0 (default: the mean over its heads); 1.2: layer 1, head 2")  # fmt: skip
    json_option(parser)


def _head(text: str) -> tuple[int | None, int]:
    """`2`: that head of `--layer`; `1.2`: layer 1, head 2, as other commands name it."""
    layer, dot, head = text.partition(".")
    return (whole(layer), whole(head)) if dot else (None, whole(text))


BAR = 30  # cells of a bar of 100 %


def attention(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import engine_of, request_of
    from tui_llm.common.display import visible
    from tui_llm.instruments.attention.question import AttentionQuestion

    engine = engine_of(options)
    weights = engine.weights()
    layer, head = options.layer, None
    if options.head is not None:
        own, head = options.head
        if None not in (own, layer) and own != layer:
            raise UserError(f"--head {own}.{head} is of layer {own}, --layer is {layer}; leave one out")
        layer = layer if own is None else own
    for name, value, most in (("layer", layer, weights.layers), ("head", head, weights.heads)):
        if value is not None and not 0 <= value < most:
            raise UserError(f"there is no {name} {value}; {visible(weights.name)} has 0 to {most - 1}")
    if head is not None and layer is None:
        raise UserError("--head needs --layer: each layer has its own heads; or give both, such as --head 1.2")
    found: AttentionMap = engine.answer(AttentionQuestion(request_of(options), token_number(options, engine)))
    put_json(_attention_json(found, layer, head)) if options.json else put(_attention_text(found, layer, head))


def _row_json(row: AttentionRow) -> dict[str, Any]:
    return {
        "weights": list(row.weights),
        "strongest": row.strongest,
        "entropy": row.entropy,
        "effective_tokens": row.effective_tokens,
    }


def _attention_json(found: AttentionMap, layer: int | None, head: int | None) -> dict[str, Any]:
    return {
        **model_json(found.weights),
        **place_json(found.place),
        "layer": layer,
        "head": head,
        "row": _row_json(found.row(layer, head)),
        "mean": _row_json(found.mean),
        "layers": [
            {"mean": _row_json(mean), "heads": [_row_json(row) for row in heads]}
            for mean, heads in zip(found.layers, found.heads, strict=True)
        ],
    }


def _attention_text(found: AttentionMap, layer: int | None, head: int | None) -> str:
    from tui_llm.common.display import token_label
    from tui_llm.common.numbers import percent
    from tui_llm.facts import report
    from tui_llm.facts.interventions import HEAD, ModelPart

    place, row = found.place, found.row(layer, head)
    if layer is None:
        whose = "mean over all heads"
    else:
        whose = f"layer {layer}, mean over heads" if head is None else ModelPart(HEAD, layer, head).name
    lines = [
        f"{model_text(found.weights)}: attention from token {place.number}, {token_label(place.token.text)}; {whose}",
        *window(place, found.weights),
        report.table(
            ("#", "token", "weight", ""),
            [
                (str(place.first + at), token_label(token.text), percent(weight), "█" * round(weight * BAR))
                for at, (token, weight) in enumerate(zip(place.tokens, row.weights, strict=False))
            ],
            left=(1, 3),
        ),
        f"entropy {row.entropy:.4f} nats: as much as equal weights on {row.effective_tokens:.2f} tokens",
    ]
    if layer is None:
        lines += [
            "",
            "the number of the token with the largest weight in each head, and that weight:",
            _heads_text(found),
        ]
    return "\n".join(lines)


def _heads_text(found: AttentionMap) -> str:
    from tui_llm.facts import report

    def cell(row: AttentionRow) -> str:
        return f"{found.place.first + row.strongest}: {row.weights[row.strongest]:.0%}"

    return report.table(
        ("layer", "mean", *(f"head {head}" for head in range(len(found.heads[0])))),
        [
            (str(at), cell(mean), *map(cell, heads))
            for at, (mean, heads) in enumerate(zip(found.layers, found.heads, strict=True))
        ],
    )
