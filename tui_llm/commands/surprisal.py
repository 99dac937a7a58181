"""`tui-llm surprisal`: a model's surprisal at each token of a text."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import MODEL, json_option, prompt_options, text_argument
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.facts.prediction import TokenScore
    from tui_llm.facts.tokens import Token


def add(commands: Commands) -> None:
    commands.add(
        "surprisal",
        "text → the surprisal of each of its tokens, −ln p",
        surprisal,
        _add_options,
        more=f"Prints for each token −ln p in nats, p, its rank, and the entropy of the distribution that predicted it. {MODEL}",
        examples=('tui-llm surprisal "The cat sat on the moon"',),
    )


def _add_options(parser: Parser) -> None:
    text_argument(parser, "prompt")
    prompt_options(parser)
    json_option(parser)


def surprisal(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import engine_of, request_of

    reading = engine_of(options, numpy_first=True).read(request_of(options, scores=True, top=1, token_window=1 << 30))
    if not reading.prompt_ids:
        raise UserError(f"{reading.problem} (--bos)")
    if reading.problem and not reading.scores:
        raise UserError(reading.problem)
    unseen = len(reading.prompt_ids) - reading.fed
    _put_scores(options, reading.weights.name, reading.weights.step, reading.tokens.tokens, reading.scores, unseen)


def _put_scores(
    options: argparse.Namespace, model: str, step: int | None, tokens: tuple[Token, ...], scores: tuple[TokenScore | None, ...],
    unseen: int,
) -> None:  # fmt: skip
    """`unseen` tokens at the start are outside the model's context."""
    from rich.cells import cell_len

    from tui_llm.common.display import fit, visible_token
    from tui_llm.facts.report import token_json

    known = [score for score in scores if score is not None]
    total = sum(score.surprisal for score in known)
    if options.json:
        rows = [{**token_json(token), **_score_json(score)} for token, score in zip(tokens, scores, strict=True)]
        put_json(
            {"model": model, "step": step, "tokens": rows, "sum": total, "mean": total / len(known) if known else None}
        )
        return
    labels = [visible_token(token.text) or "∅" for token in tokens]
    room = max(5, *map(cell_len, labels))
    put(f"{fit('token', room)}  {'id':>7}  {'surprisal':>9}  {'p':>10}  {'rank':>7}  {'entropy':>7}   (nats)")
    for at, (label, token, score) in enumerate(zip(labels, tokens, scores, strict=True)):
        first = (
            "outside the model's context" if at < unseen else "the first token" + (" the model sees" if unseen else "")
        )
        numbers = f"–  (no prediction: {first})" if score is None else _numbers(score)
        put(f"{fit(label, room)}  {token.id:>7}  {numbers}")
    if known:
        put(f"{len(known):,} predicted: sum {total:.3f} nats, mean {total / len(known):.3f}")


def _score_json(score: TokenScore | None) -> dict[str, Any]:
    if score is None:
        return {"surprisal": None, "probability": None, "rank": None, "entropy": None}
    return {
        "surprisal": score.surprisal,
        "probability": score.probability,
        "rank": score.rank,
        "entropy": score.entropy,
    }


def _numbers(score: TokenScore) -> str:
    return f"{score.surprisal:>9.3f}  {score.probability:>10.3g}  {score.rank:>7,}  {score.entropy:>7.3f}"
