"""`tui-llm merges`: byte-pair encoding, merge by merge."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import json_option, text_argument, tokenizer_option
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.llm.tokens.bpe import Replay


def add(commands: Commands) -> None:
    commands.add(
        "merges",
        "text → how each word becomes tokens, merge by merge",
        merges,
        _add_options,
        more="Byte-pair encoding step by step: each step merges the pair with the lowest rank. Needs a BPE vocabulary.",
        examples=('tui-llm merges " strawberry"',),
    )


def _add_options(parser: Parser) -> None:
    text_argument(parser, help="mind the leading space, as in ' strawberry'")
    tokenizer_option(parser, known="gpt2, cl100k_base, o200k_base")
    json_option(parser)


def merges(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import tokenizer_of
    from tui_llm.common.display import visible, visible_token
    from tui_llm.facts.report import token_json
    from tui_llm.instruments.merges.answer import NONE
    from tui_llm.instruments.merges.answer import merges as every
    from tui_llm.llm.tokens.tokenizer import BPETokenizer

    vocabulary = tokenizer_of(options.tokenizer)
    if not isinstance(vocabulary, BPETokenizer):
        raise UserError(NONE.format(options.tokenizer))
    if not options.text:
        raise UserError("there is nothing to merge; give some text, such as ' strawberry'")
    found = every(vocabulary, options.text)
    if options.json:
        words = [
            {
                "text": word.text,
                "tokens": [token_json(token) for token in word.tokens],
                "whole_word_looked_up": word.replay is not None and word.replay.whole,
                "steps": _steps_json(word.replay) if word.replay is not None else None,
                "problem": word.problem or None,
            }
            for word in found.words
        ]
        put_json({"tokenizer": found.tokenizer, "merges": found.merges, "pattern": found.pattern, "words": words})
        return
    put(
        f"{visible(found.tokenizer)}: {found.merges:,} merges, rank 0 was learned first; the lowest rank is merged first"
    )
    for word in found.words:
        put("")
        ids = ", ".join(str(token.id) for token in word.tokens)
        if word.replay is None:
            put(f"{visible_token(word.text)}: {word.problem}; ids {ids}")
            continue
        for number, state in enumerate(word.replay.states):
            rank = None
            if number:
                before = word.replay.states[number - 1]
                rank = before.ranks[before.best] if before.best is not None else None
            put(f"{'bytes' if rank is None else f'rank {rank:,}':>12}  {_parts(state.parts)}")
        if word.replay.whole:
            put(f"{'whole':>12}  {visible_token(word.text)} (the whole word is a token: it is looked up whole)")
        put(f"{'ids':>12}  {ids}")


def _parts(parts: tuple[bytes, ...]) -> str:
    from tui_llm.common.display import visible_token
    from tui_llm.llm.tokens.token_bytes import token_text

    return "|".join(visible_token(token_text(part)) for part in parts)


def _steps_json(replay: Replay) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    for number, state in enumerate(replay.states):
        before = replay.states[number - 1] if number else None
        at = before.best if before is not None else None
        rank = before.ranks[at] if before is not None and at is not None else None
        steps.append({"parts": [part.hex() for part in state.parts], "merged": at, "rank": rank})
    return steps
