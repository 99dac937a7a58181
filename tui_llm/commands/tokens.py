"""`tui-llm tokens`: a text's tokens, in one vocabulary or compared across all of them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import allow_special_option, json_option, text_argument, tokenizer_option
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.numbers import counted

if TYPE_CHECKING:
    from tui_llm.llm.tokens.tokenizer import Tokenizer


def add(commands: Commands) -> None:
    commands.add(
        "tokens",
        "text → tokens: ids, bytes and pieces",
        tokens,
        _add_options,
        more="Prints one row per token: its position, id, bytes and text. It needs a vocabulary; no model is run. The bytes of all "
        "tokens together are the text's.",
        examples=(
            'tui-llm tokens "Hello, world"',
            'tui-llm tokens "Hello, world" --tokenizer byte --json',
            'tui-llm tokens "unbelievable" --compare',
        ),
    )


def _add_options(parser: Parser) -> None:
    text_argument(parser)
    tokenizer_option(parser)
    allow_special_option(parser)
    parser.add_argument("--compare", action="store_true", help="compare words, characters, bytes and every available vocabulary")  # fmt: skip
    json_option(parser)


def tokens(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import tokenizer_of
    from tui_llm.facts import report
    from tui_llm.session.tokenization import tokenization

    vocabulary = tokenizer_of(options.tokenizer)
    ids = vocabulary.encode(options.text, allow_special=options.allow_special)
    if options.compare:
        _compare(vocabulary, ids, options)
        return
    made = tokenization(vocabulary, ids)
    put_json(report.tokens_json(made)) if options.json else put(report.tokens_text(made))


def _compare(vocabulary: Tokenizer, ids: list[int], options: argparse.Namespace) -> None:
    """`--compare`: the text in every vocabulary, `vocabulary` first."""
    from tui_llm.common.display import fit, visible, visible_token
    from tui_llm.instruments.vocabularies.answer import compare

    found = compare(options.text, vocabulary, ids, options.tokenizer, {}, lambda: False)
    words = found.words
    if options.json:
        sides = [
            {
                "name": side.name,
                "size": side.size,
                "count": side.count if not side.problem else None,
                "characters_per_token": side.characters_per_token if not side.problem else None,
                "bytes_per_token": side.bytes_per_token if not side.problem else None,
                "problem": side.problem or None,
            }
            for side in found.sides
        ]
        put_json(
            {
                "characters": found.characters,
                "bytes": found.bytes,
                "vocabularies": sides,
                "words": {"source": words.source, "trained_on_it": words.trained, "size": words.size, "count": words.count,
                          "missing_count": words.missing_count, "missing": list(words.missing), "problem": words.problem or None},
            }
        )  # fmt: skip
        return
    put(f"{counted(found.characters, 'character')}, {counted(found.bytes, 'byte')}")
    for side in found.sides:
        name = fit(visible(side.name), 14)
        if side.tokens is None:
            put(f"{name}  {side.problem}")
            continue
        size = "any" if side.size is None else f"{side.size:,}"
        put(
            f"{name}  {side.count:>7,} token{'s' if side.count != 1 else ' '}  {side.characters_per_token:6.2f} characters each  ({size} in it{side.tokens.contents and f': {side.tokens.contents}'})"
        )
        more = " ⋯" if side.count > len(side.tokens.tokens) else ""
        put("                " + "|".join(visible_token(piece.text) for piece in side.tokens.pieces) + more)
    if words.problem:
        put(f"words: {visible(words.problem)}")
        return
    what = "the training text" if words.trained else "the vocabulary's training text is not available; those of"
    put(f"words: {what} {visible(words.source)}, {words.size:,} distinct; {words.missing_count:,} of {words.count:,} "
        f"in the text {'is' if words.missing_count == 1 else 'are'} not among them" + (": " + ", ".join(map(visible, words.missing)) if words.missing else ""))  # fmt: skip
