"""`tui-llm letters`: how often a letter occurs in each token of a text."""

from __future__ import annotations

import argparse

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import json_option, text_argument, tokenizer_option
from tui_llm.commands.shared.output import put, put_json


def add(commands: Commands) -> None:
    commands.add(
        "letters",
        "text and letter → how often the letter occurs in each token",
        letters,
        _add_options,
        more="Prints each token and how often the letter occurs in it. A model sees the ids only.",
        examples=("tui-llm letters strawberry --letter r",),
    )


def _add_options(parser: Parser) -> None:
    text_argument(parser)
    parser.add_argument("--letter", required=True, metavar="L", help="one letter; upper and lower case are counted alike")  # fmt: skip
    tokenizer_option(parser, known="gpt2, cl100k_base, o200k_base")
    json_option(parser)


def letters(options: argparse.Namespace) -> None:
    from rich.cells import cell_len

    from tui_llm.commands.shared.engine import tokenizer_of
    from tui_llm.common.display import fit, visible, visible_token
    from tui_llm.facts.report import token_json
    from tui_llm.llm.tokens.letters import count, one_letter
    from tui_llm.session.tokenization import tokenization

    letter = one_letter(options.letter)
    vocabulary = tokenizer_of(options.tokenizer)
    made = tokenization(vocabulary, vocabulary.encode(options.text))
    found = count([token.bytes for token in made.tokens], letter)
    if options.json:
        rows = [{**token_json(token), "letters": n} for token, n in zip(made.tokens, found.inside, strict=True)]
        put_json(
            {"letter": letter, "tokenizer": made.tokenizer, "count": found.total, "split": found.split, "tokens": rows}
        )
        return
    holding = sum(map(bool, found.inside))
    times = f"{found.total:,} time{'' if found.total == 1 else 's'}"
    put(f"{visible(letter)} occurs {times}, in {holding:,} of {made.count:,} tokens of {visible(made.tokenizer)}")
    if found.split:
        put(f"{found.split:,} of them are split: their bytes are in more than one token")
    labels = [visible_token(token.text) or "∅" for token in made.tokens]
    room = max((cell_len(label) for label in labels), default=0)
    for label, token, inside in zip(labels, made.tokens, found.inside, strict=True):
        put(f"{fit(label, room)}  {token.id:>7}  {inside or '·'}")
