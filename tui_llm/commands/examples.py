"""`tui-llm examples`: a text's training pairs, with the model's loss on each if asked."""

from __future__ import annotations

import argparse

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import allow_special_option, json_option, text_argument, tokenizer_option
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted


def add(commands: Commands) -> None:
    commands.add(
        "examples",
        "text → its n − 1 training pairs of input and target",
        examples,
        _add_options,
        more="A text is its own labels: the target after each token is the next token. Prints one row per pair; with --loss also the "
        "model's loss on it, in nats.",
        examples=('tui-llm examples "The cat sat on the mat"', 'tui-llm examples "The cat sat on the mat" --loss'),
    )


def _add_options(parser: Parser) -> None:
    text_argument(parser)
    tokenizer_option(parser)
    allow_special_option(parser)
    parser.add_argument("--loss", action="store_true", help="with the loss on each pair, of the model whose vocabulary it is")  # fmt: skip
    json_option(parser)


def examples(options: argparse.Namespace) -> None:
    if options.loss:
        _examples_with_loss(options)
        return
    from tui_llm.commands.shared.engine import tokenizer_of
    from tui_llm.common.display import visible, visible_token
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
        f"{counted(len(ids), 'token')} in {visible(vocabulary.name)} make {counted(count, 'training pair')}: after each token, the one to predict"
    )
    for seen, target in pairs(ids):
        put(f"{visible_token(text(*seen))}  →  {visible_token(text(target))}")


def _examples_with_loss(options: argparse.Namespace) -> None:
    """`--loss`: the vocabulary must be a model's, which gives the loss."""
    from tui_llm.commands.shared.engine import open_engine
    from tui_llm.common.display import visible, visible_token
    from tui_llm.facts.request import Request
    from tui_llm.instruments.pairs.question import PairsQuestion
    from tui_llm.llm.tokens import catalog
    from tui_llm.llm.tokens.token_bytes import token_text

    if catalog.is_known(options.tokenizer):
        raise UserError(f"{options.tokenizer} is a vocabulary without a model: give a model's name after --tokenizer")
    request = Request(prompt=options.text, allow_special=options.allow_special, token_window=1 << 30)
    pairs = open_engine(options.tokenizer).answer(PairsQuestion(request))
    if options.json:
        ids = [token.id for token in pairs.tokens]
        rows = [
            {
                "input": ids[: at + 1],
                "target": ids[at + 1],
                "input_text": token_text(b"".join(token.bytes for token in pairs.tokens[: at + 1])),
                "target_text": pairs.tokens[at + 1].text,
                "loss": score.surprisal if score is not None else None,
                "probability": score.probability if score is not None else None,
                "rank": score.rank if score is not None else None,
            }
            for at, score in enumerate(pairs.scores)
        ]
        put_json({"count": len(rows), "tokenizer": pairs.weights.name, "mean_loss": pairs.mean, "pairs": rows})
        return
    put(
        f"{counted(pairs.count, 'token')} in {visible(pairs.weights.name)} make {counted(len(pairs.scores), 'training pair')}; loss in nats"
    )
    for at, score in enumerate(pairs.scores):
        seen = visible_token(token_text(b"".join(token.bytes for token in pairs.tokens[: at + 1])))
        number = "       –" if score is None else f"{score.surprisal:8.3f}"
        put(f"{number}  {seen}  →  {visible_token(pairs.tokens[at + 1].text)}")
    if pairs.mean is not None:
        put(f"mean {pairs.mean:.3f} nats")
