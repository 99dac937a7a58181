"""The black box, opened: attention, lens, neighbours."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.options import AddCommand, json_option, model_options, prompt_options, weights_option, whole
from tui_llm.commands.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.engine import PipelineEngine
    from tui_llm.facts.model import Weights
    from tui_llm.facts.place import Place
    from tui_llm.facts.request import Request, Target
    from tui_llm.facts.tokens import Token
    from tui_llm.instruments.attention.question import Attention, Look
    from tui_llm.instruments.lens.question import Lens
    from tui_llm.instruments.neighbours.question import Neighbours

TOKEN = "token number N of the text, from 0; below 0 counts from its end (default -1, the last)"


def add(command: AddCommand) -> None:
    attention = command("attention", "which earlier tokens each head looked at", "inside")
    attention.add_argument("text", metavar="TEXT")
    prompt_options(attention)
    attention.add_argument("--token", type=whole, metavar="N", help="looks from " + TOKEN)
    attention.add_argument(
        "--layer", type=whole, metavar="L", help="of this layer, from 1 (default: the mean over all heads)"
    )
    attention.add_argument(
        "--head", type=whole, metavar="H", help="of this head of the layer, from 1 (default: the mean over its heads)"
    )

    lens = command("lens", "logit lens: the prediction as it stands after each layer", "inside")
    lens.add_argument("text", metavar="TEXT")
    prompt_options(lens)
    lens.add_argument("--token", type=whole, metavar="N", help="the prediction after " + TOKEN)
    lens.add_argument(
        "--target",
        metavar="TEXT",
        help="follow this token, as in ' mat' (default: the text's own next token, or the likeliest)",
    )
    lens.add_argument("--top", type=whole, default=5, metavar="N", help="how many tokens to list (default 5)")

    neighbours = command("neighbours", "the tokens whose embeddings point the same way as one token's", "inside")
    neighbours.add_argument("token", metavar="TOKEN", help="one token, as in ' king', or #464 for the id 464")
    model_options(neighbours)
    weights_option(neighbours)
    neighbours.add_argument("--count", type=whole, default=20, metavar="N", help="how many to list (default 20)")

    for sub in (attention, lens, neighbours):
        json_option(sub)


BAR = 30  # cells of a bar that stands for 100 %


def _request(options: argparse.Namespace, target: Target | None = None) -> Request:
    from tui_llm.facts.request import Request

    return Request(
        prompt=options.text,
        allow_special=options.allow_special,
        start_token=options.bos,
        chat=options.chat,
        target=target,
    )


def _number(options: argparse.Namespace, engine: PipelineEngine) -> int | None:
    """`--token`, counted from the text's beginning."""
    token: int | None = options.token
    if token is None or token >= 0:
        return token
    count = len(engine.ids(_request(options)))
    if count and token < -count:
        raise UserError(f"--token is {token}; this text has tokens {-count} to {count - 1}")
    return count + token if count else None


def _model(weights: Weights) -> str:
    from tui_llm.common.display import visible

    kept = "" if weights.kept_as == "fp32" else f", {weights.kept_as} weights"
    return f"model {visible(weights.name)}{kept}" + (f", step {weights.step:,}" if weights.step is not None else "")


def _model_json(weights: Weights) -> dict[str, Any]:
    return {"model": weights.name, "step": weights.step, "weights": weights.kept_as}


def _place_json(place: Place) -> dict[str, Any]:
    from tui_llm.facts import report

    return {"token": place.number, "first": place.first, "tokens": [report.token_json(token) for token in place.tokens]}


def _token(token: Token) -> str:
    from tui_llm.common.display import visible_token

    return visible_token(token.text) or "∅"


def _cut_off(place: Place, weights: Weights) -> list[str]:
    if not place.first:
        return []
    return [f"the model's context is {weights.context} tokens: it sees the last {len(place.tokens)} of {place.count:,}"]


# ── attention ────────────────────────────────────────────────────────────────────────────────────────────────────


def attention(options: argparse.Namespace) -> None:
    from tui_llm.commands.engine import engine_of
    from tui_llm.common.display import visible
    from tui_llm.instruments.attention.question import AttentionQuestion

    engine = engine_of(options)
    weights = engine.weights()
    for name, value, most in (("--layer", options.layer, weights.layers), ("--head", options.head, weights.heads)):
        if value is not None and not 1 <= value <= most:
            raise UserError(f"{name} is {value}; {visible(weights.name)} has 1 to {most}")
    if options.head is not None and options.layer is None:
        raise UserError("--head needs --layer: each layer has heads of its own")
    found: Attention = engine.answer(AttentionQuestion(_request(options), _number(options, engine)))
    put_json(_attention_json(found)) if options.json else put(
        _attention_text(found, options.layer or 0, options.head or 0)
    )


def _look_json(look: Look) -> dict[str, Any]:
    return {"weights": list(look.weights), "strongest": look.strongest, "entropy": look.entropy, "spread": look.spread}


def _attention_json(found: Attention) -> dict[str, Any]:
    return {
        **_model_json(found.weights),
        **_place_json(found.place),
        "mean": _look_json(found.mean),
        "layers": [
            {"mean": _look_json(mean), "heads": [_look_json(look) for look in heads]}
            for mean, heads in zip(found.layers, found.heads, strict=True)
        ],
    }


def _attention_text(found: Attention, layer: int, head: int) -> str:
    from tui_llm.common.numbers import percent
    from tui_llm.facts import report

    place, look = found.place, found.look(layer, head)
    whose = "mean over all heads" if not layer else f"layer {layer}, " + (f"head {head}" if head else "mean over heads")
    lines = [
        f"{_model(found.weights)}: attention from token {place.number}, {_token(place.token)}; {whose}",
        *_cut_off(place, found.weights),
        report.table(
            ("#", "token", "weight", ""),
            [
                (str(place.first + at), _token(token), percent(weight), "█" * round(weight * BAR))
                for at, (token, weight) in enumerate(zip(place.tokens, look.weights, strict=False))
            ],
            left=(1, 3),
        ),
        f"entropy {look.entropy:.4f} nats: as if it had looked at {look.spread:.2f} tokens evenly",
    ]
    if not layer:
        lines += ["", "the token number that each head looked at most, and its weight:", _heads_text(found)]
    return "\n".join(lines)


def _heads_text(found: Attention) -> str:
    from tui_llm.facts import report

    def cell(look: Look) -> str:
        return f"{found.place.first + look.strongest}: {look.weights[look.strongest]:.0%}"

    return report.table(
        ("layer", "mean", *(f"head {head + 1}" for head in range(len(found.heads[0])))),
        [
            (str(at), cell(mean), *map(cell, heads))
            for at, (mean, heads) in enumerate(zip(found.layers, found.heads, strict=True), 1)
        ],
    )


# ── logit lens ───────────────────────────────────────────────────────────────────────────────────────────────────


def lens(options: argparse.Namespace) -> None:
    from tui_llm.commands.engine import engine_of
    from tui_llm.facts.request import Target
    from tui_llm.instruments.lens.question import LensQuestion

    if options.top < 1:
        raise UserError(f"--top is {options.top}; give 1 or more")
    engine = engine_of(options)
    target = None if options.target is None else Target(text=options.target)
    found: Lens = engine.answer(LensQuestion(_request(options, target), _number(options, engine), options.top))
    put_json(_lens_json(found)) if options.json else put(_lens_text(found))


def _lens_json(found: Lens) -> dict[str, Any]:
    from tui_llm.facts import report

    return {
        **_model_json(found.weights),
        **_place_json(found.place),
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


def _lens_text(found: Lens) -> str:
    from tui_llm.common.numbers import percent
    from tui_llm.facts import report

    place = found.place
    rows = [
        (
            str(row.layer) if row.layer else "embedding",
            percent(row.probability),
            str(row.rank),
            f"{row.entropy:.3f}",
            f"{row.divergence:.3f}",
            "  ".join(f"{_token(g.token)} {percent(g.probability)}" for g in row.guesses),
        )
        for row in found.rows
    ]
    return "\n".join(
        [
            f"{_model(found.weights)}: after token {place.number}, {_token(place.token)}; "
            f"target {_token(found.target)}{CHOSEN[found.chosen]}",
            *_cut_off(place, found.weights),
            report.table(("after layer", "p(target)", "rank", "entropy", "KL", "likeliest"), rows, left=(0, 5)),
            "each row: the final LayerNorm and the head on what that layer hands on; the last is the model's prediction",
            "entropy in nats; KL: nats by which the row is off the model's prediction",
        ]
    )


# ── neighbours ───────────────────────────────────────────────────────────────────────────────────────────────────


def neighbours(options: argparse.Namespace) -> None:
    from tui_llm.commands.engine import engine_of
    from tui_llm.facts.request import Request
    from tui_llm.instruments.neighbours.question import NeighboursQuestion

    if options.count < 1:
        raise UserError(f"--count is {options.count}; give 1 or more")
    found: Neighbours = engine_of(options).answer(
        NeighboursQuestion(Request(), count=options.count, text=options.token)
    )
    put_json(_neighbours_json(found)) if options.json else put(_neighbours_text(found))


def _neighbours_json(found: Neighbours) -> dict[str, Any]:
    from tui_llm.facts import report

    return {
        **_model_json(found.weights),
        "token": report.token_json(found.token),
        "width": found.width,
        "norm": report.finite(found.norm),
        "neighbours": [{**report.token_json(n.token), "cosine": report.finite(n.cosine)} for n in found.nearest],
    }


def _neighbours_text(found: Neighbours) -> str:
    from tui_llm.facts import report

    rows = [(str(at), _token(n.token), str(n.token.id), f"{n.cosine:.4f}") for at, n in enumerate(found.nearest, 1)]
    return "\n".join(
        [
            f"{_model(found.weights)}: nearest to {_token(found.token)} (id {found.token.id}) by the cosine of their "
            f"embeddings, {found.width} numbers each",
            report.table(("", "token", "id", "cosine"), rows, left=(1,)),
        ]
    )
