"""Tokens taken apart: merges, letters, surprisal, vocabularies side by side, pairs with their loss."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.options import DEFAULT_MODEL, AddCommand, json_option, prompt_options
from tui_llm.commands.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.facts.prediction import TokenScore
    from tui_llm.facts.tokens import Token
    from tui_llm.llm.tokens.bpe import Replay


def add(command: AddCommand) -> None:
    merges = command("merges", "text → how each word becomes tokens, merge by merge", "tokens")
    merges.add_argument("text", metavar="TEXT", help="mind the leading space, as in ' strawberry'")
    letters = command("letters", "text and letter → the letter counted across the tokens that hide it", "tokens")
    letters.add_argument("text", metavar="TEXT")
    letters.add_argument("--letter", required=True, metavar="L", help="one letter; upper and lower case are alike")
    for sub in (merges, letters):
        sub.add_argument("--tokenizer", default=DEFAULT_MODEL, metavar="NAME",
                         help="gpt2, cl100k_base, o200k_base, a model's name or folder (default nano)")  # fmt: skip
    surprisal = command("surprisal", "text → how surprised a model is by each of its tokens", "tokens")
    surprisal.add_argument("prompt", metavar="TEXT")
    prompt_options(surprisal)
    for sub in (merges, letters, surprisal):
        json_option(sub)


def _token_json(token: Token) -> dict[str, Any]:
    return {"id": token.id, "bytes": token.bytes.hex(), "text": token.text}


# ── merges ───────────────────────────────────────────────────────────────────────────────────────────────────────


def merges(options: argparse.Namespace) -> None:
    from tui_llm.commands.engine import tokenizer_of
    from tui_llm.common.display import visible, visible_token
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
                "tokens": [_token_json(token) for token in word.tokens],
                "whole_word_looked_up": word.replay is not None and word.replay.whole,
                "steps": _steps_json(word.replay) if word.replay is not None else None,
                "problem": word.problem or None,
            }
            for word in found.words
        ]
        put_json({"tokenizer": found.tokenizer, "merges": found.merges, "pattern": found.pattern, "words": words})
        return
    put(f"{visible(found.tokenizer)}: {found.merges:,} merges, rank 0 was learned first; the lowest rank goes first")
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
            put(f"{'whole':>12}  {visible_token(word.text)} (the word itself is a token: it is looked up, not merged)")
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


# ── letters ──────────────────────────────────────────────────────────────────────────────────────────────────────


def letters(options: argparse.Namespace) -> None:
    from rich.cells import cell_len

    from tui_llm.commands.engine import tokenizer_of
    from tui_llm.common.display import fit, visible, visible_token
    from tui_llm.llm.tokens.letters import count, one_letter
    from tui_llm.session.tokenization import tokenization

    letter = one_letter(options.letter)
    vocabulary = tokenizer_of(options.tokenizer)
    made = tokenization(vocabulary, vocabulary.encode(options.text))
    found = count([token.bytes for token in made.tokens], letter)
    if options.json:
        rows = [{**_token_json(token), "letters": n} for token, n in zip(made.tokens, found.inside, strict=True)]
        put_json(
            {"letter": letter, "tokenizer": made.tokenizer, "count": found.total, "split": found.split, "tokens": rows}
        )
        return
    holding = sum(map(bool, found.inside))
    times = f"{found.total:,} time{'' if found.total == 1 else 's'}"
    put(f"{visible(letter)} is there {times}, inside {holding:,} of {made.count:,} tokens of {visible(made.tokenizer)}")
    if found.split:
        put(f"{found.split:,} of them are cut: their bytes are in more than one token")
    labels = [visible_token(token.text) or "∅" for token in made.tokens]
    room = max((cell_len(label) for label in labels), default=0)
    for label, token, inside in zip(labels, made.tokens, found.inside, strict=True):
        put(f"{fit(label, room)}  {token.id:>7}  {inside or '·'}")


# ── surprisal, pairs with their loss ─────────────────────────────────────────────────────────────────────────────


def surprisal(options: argparse.Namespace) -> None:
    from tui_llm.commands.engine import engine_of
    from tui_llm.facts.request import Request

    reading = engine_of(options).read(
        Request(prompt=options.prompt, allow_special=options.allow_special, start_token=options.bos, chat=options.chat, scores=True, top=1,
                token_window=1 << 30)
    )  # fmt: skip
    if not reading.prompt_ids:
        raise UserError(f"{reading.problem} (--bos)")
    _put_scores(options, reading.weights.name, reading.weights.step, reading.tokens.tokens, reading.scores)


def _put_scores(
    options: argparse.Namespace, model: str, step: int | None, tokens: tuple[Token, ...], scores: tuple[TokenScore | None, ...]
) -> None:  # fmt: skip
    from rich.cells import cell_len

    from tui_llm.common.display import fit, visible_token

    known = [score for score in scores if score is not None]
    total = sum(score.surprisal for score in known)
    if options.json:
        rows = [{**_token_json(token), **_score_json(score)} for token, score in zip(tokens, scores, strict=True)]
        put_json(
            {"model": model, "step": step, "tokens": rows, "sum": total, "mean": total / len(known) if known else None}
        )
        return
    labels = [visible_token(token.text) or "∅" for token in tokens]
    room = max(5, *map(cell_len, labels))
    put(f"{fit('token', room)}  {'id':>7}  {'surprisal':>9}  {'p':>10}  {'rank':>7}  {'entropy':>7}   (nats)")
    for label, token, score in zip(labels, tokens, scores, strict=True):
        numbers = "–  (nothing predicts it)" if score is None else _numbers(score)
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


def examples_with_loss(options: argparse.Namespace) -> None:
    """`examples --loss`: the vocabulary is a model's, and so is the loss."""
    from tui_llm.commands.engine import open_engine
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
        f"{pairs.count:,} tokens in {visible(pairs.weights.name)} make {len(pairs.scores):,} training pairs; loss in nats"
    )
    for at, score in enumerate(pairs.scores):
        seen = visible_token(token_text(b"".join(token.bytes for token in pairs.tokens[: at + 1])))
        number = "       –" if score is None else f"{score.surprisal:8.3f}"
        put(f"{number}  {seen}  →  {visible_token(pairs.tokens[at + 1].text)}")
    if pairs.mean is not None:
        put(f"mean {pairs.mean:.3f} nats")


# ── vocabularies side by side ────────────────────────────────────────────────────────────────────────────────────


def compared(options: argparse.Namespace) -> None:
    """`tokens --compare`."""
    from tui_llm.commands.engine import tokenizer_of
    from tui_llm.common.display import fit, visible, visible_token
    from tui_llm.instruments.vocabularies.answer import compare

    own = tokenizer_of(options.tokenizer)
    ids = own.encode(options.text, allow_special=options.allow_special)
    found = compare(options.text, own, ids, options.tokenizer, {}, lambda: False)
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
    put(f"{found.characters:,} characters, {found.bytes:,} bytes")
    for side in found.sides:
        name = fit(visible(side.name), 14)
        if side.tokens is None:
            put(f"{name}  {side.problem}")
            continue
        size = "any" if side.size is None else f"{side.size:,}"
        put(f"{name}  {side.count:>7,} tokens  {side.characters_per_token:6.2f} characters each  ({size} in it)")
        more = " ⋯" if side.count > len(side.tokens.tokens) else ""
        put("                " + "|".join(visible_token(piece.text) for piece in side.tokens.pieces) + more)
    if words.problem:
        put(f"words: {visible(words.problem)}")
        return
    what = "the text that it learned from" if words.trained else "its own training text is not here: those of"
    put(f"words: {what} {visible(words.source)}, {words.size:,} different ones; {words.missing_count:,} of {words.count:,} "
        "here are not among them" + (": " + ", ".join(map(visible, words.missing)) if words.missing else ""))  # fmt: skip
