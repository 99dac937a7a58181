"""`tui-llm guess`: a game: guess the next token, and be scored in bits beside the models."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, TextIO

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import (  # fmt: skip
    MODEL,
    allow_special_option,
    json_option,
    model_options,
    weights_option,
    whole,
)
from tui_llm.commands.shared.output import put, put_json
from tui_llm.commands.shared.streams import read_line
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tui_llm.engine import PipelineEngine
    from tui_llm.facts.request import Request
    from tui_llm.instruments.guess.game import Guess, GuessGame
    from tui_llm.instruments.guess.question import Bets, GuessRound, GuessTurn

LARGEST = 1_000_000  # bytes of a text

HOW = """\
Type a word and the percent that you bet on it: mat 50, or mat 50 floor 20.
  +ing 50   joined to the text, without a space      #3 50   the third choice
  " mat" 50   in quotes: exactly this text           Enter alone: no bet
Ctrl+D or Ctrl+C ends the game with the score so far."""


def add(commands: Commands) -> None:
    commands.add(
        "guess",
        "a game: guess the next token, scored in bits beside unigram, nano and the model",
        guess,
        _add_options,
        more="The text is yours, or a held-out paragraph that ships and that nano never saw. You bet percents on tokens, at most 99 in all: "
        "`mat 50 floor 20`. Your bits are −log2 of the probability that your bets give the true token; what you don't bet is spread as "
        "unigram does, by how often each token occurs, so a wrong guess costs a finite number of bits. At the end: bits per token for you, unigram, nano and the open "
        "model, and the tokens where you beat it. Answers are lines of standard input, an empty one bets nothing; the end of the input "
        f"ends the game. {MODEL}",
        examples=(
            "tui-llm guess",
            'tui-llm guess "Once upon a time there was a little girl" --turns 5',
            "tui-llm guess --file story.txt --seed 1 --json",
        ),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the text to guess, - for standard input (default: a held-out paragraph)")  # fmt: skip
    parser.add_argument("--file", metavar="FILE", help="the text to guess is in this file")
    parser.add_argument("--turns", type=whole, default=10, metavar="N", help="tokens to guess (default 10)")
    parser.add_argument("--choices", type=whole, default=10, metavar="N", help="list the model's N likeliest tokens, in alphabetical order (default 10, 0 for none)")  # fmt: skip
    parser.add_argument("--seed", type=whole, metavar="S", help="chooses the paragraph and the place in it (default: another one each time)")  # fmt: skip
    model_options(parser)
    weights_option(parser)
    parser.add_argument("--bos", action="store_true", help="put an explicit start token in front (GPT-2's is <|endoftext|>)")  # fmt: skip
    allow_special_option(parser)
    json_option(parser)


def guess(options: argparse.Namespace) -> int:
    import random

    from tui_llm.commands.shared.engine import engine_of
    from tui_llm.facts.request import Request
    from tui_llm.instruments.guess.game import GuessGame
    from tui_llm.instruments.guess.question import RoundQuestion

    text, answers = _text_and_answers(options)
    seed = random.randrange(10_000) if options.seed is None else options.seed
    request = Request(allow_special=options.allow_special, start_token=options.bos)
    engine = engine_of(options, numpy_first=True)
    game = GuessGame(engine.answer(RoundQuestion(request, text, seed, options.turns, options.choices)))
    status = 0
    try:
        _play(engine, request, game, answers, quiet=options.json)
    except KeyboardInterrupt:  # ends the game with the score so far
        status = 130
        if not options.json:
            put("")
    put_json(game_json(game)) if options.json else put(score_text(game))
    return status


# ── input ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _text_and_answers(options: argparse.Namespace) -> tuple[str | None, TextIO]:
    """The text to guess, or None for a shipped paragraph; and where the answers are read from."""
    if options.text is not None and options.file is not None:
        raise UserError("TEXT and --file are both given; leave one of them out")
    if options.file is not None:
        from tui_llm.common import paths
        from tui_llm.llm.data.texts import read_text

        return read_text(paths.expand(options.file), LARGEST), _stdin()
    if options.text != "-":
        return options.text, _stdin()
    try:
        text = _stdin().read(LARGEST + 1)
    except UnicodeDecodeError as error:
        raise UserError("standard input is not UTF-8 text; convert it") from error
    except OSError as error:
        raise UserError(f"can't read the text from standard input: {error.strerror or error}") from error
    if len(text) > LARGEST:
        raise UserError(f"standard input has more than {LARGEST:,} characters; give a shorter text")
    try:
        return text, open("/dev/tty", encoding="utf-8", errors="replace")  # noqa: PTH123
    except OSError as error:
        raise UserError(
            "standard input is the text, so there is no terminal to answer from: use --file FILE"
        ) from error


def _stdin() -> TextIO:
    reconfigure = getattr(sys.stdin, "reconfigure", None)
    if reconfigure is not None:  # the same in every locale: a pipe's text is UTF-8 or refused
        reconfigure(encoding="utf-8", errors="replace" if sys.stdin.isatty() else "strict")
    return sys.stdin


def _lines(answers: TextIO, prompt: str, out: TextIO) -> Iterator[str]:
    """The lines of `answers`. A person is shown `prompt` before each, on `out`."""
    asks = answers.isatty()
    while True:
        if asks:
            print(prompt, end="", file=out, flush=True)
        line = read_line(answers, "the answers")
        if not line:
            if asks:
                print(file=out)
            return
        yield line.rstrip("\r\n")


# ── the game ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _play(engine: PipelineEngine, request: Request, game: GuessGame, answers: TextIO, *, quiet: bool) -> None:
    """Plays until the last turn or the end of the answers. A line that can't be read is an error, or is asked again from a
    person."""
    from tui_llm.common.display import visible

    if not quiet:
        put(_opening(game.round))
        put(_turn_text(game, whole=True))
    out = sys.stderr if quiet else sys.stdout  # JSON alone is on stdout
    for line in _lines(answers, "> ", out):
        turn = game.turn
        assert turn is not None
        try:
            found = _bets(engine, request, line, turn)
        except UserError as error:
            if not answers.isatty():
                raise UserError(f"answer {len(game.guesses) + 1}: {error}") from error
            print(visible(str(error)), file=out, flush=True)
            continue
        made = game.guess(found.bets)
        if not quiet:
            put(_guess_text(game.round, made, found))
        if game.turn is None:
            return
        if not quiet:
            put(_turn_text(game))


def _bets(engine: PipelineEngine, request: Request, line: str, turn: GuessTurn) -> Bets:
    from tui_llm.instruments.guess.question import BetsQuestion

    return engine.answer(BetsQuestion(request, line, turn.before, turn.choices))


def _opening(round: GuessRound) -> str:
    from tui_llm.common.display import visible
    from tui_llm.common.numbers import counted
    from tui_llm.instruments.guess.game import RULE

    source = f"{round.source}, which nano never saw" if round.source else "your text"
    title = f"Guess {counted(len(round.turns), 'token')}, one after another, of {source} (--seed {round.seed})"
    return f"{_wrapped(visible(title))}\n{_wrapped(RULE)}\nunigram: {round.opponents[0].about}\n\n{HOW}"


def _turn_text(game: GuessGame, whole: bool = False) -> str:
    """The text so far, or its end, and the choices."""
    from rich.cells import cell_len

    from tui_llm.common.display import visible, visible_token

    turn = game.turn
    assert turn is not None
    tail = turn.before if whole else turn.before[-160:]
    text = ("" if len(tail) == len(turn.before) else "…") + visible(tail) + "▁"
    lines = [f"\n{len(game.guesses) + 1} of {len(game.round.turns)}", _wrapped(text)]
    labels = [f"#{number} {visible_token(token.text)}" for number, token in enumerate(turn.choices, 1)]
    line = ""
    for label in labels:
        if line and cell_len(line) + 2 + cell_len(label) > _width():
            lines.append(line)
            line = ""
        line += f"{'  ' if line else ''}{label}"
    return "\n".join([*lines, *([line] if line else [])])


def _guess_text(round: GuessRound, made: Guess, found: Bets) -> str:
    from tui_llm.common.display import visible, visible_token
    from tui_llm.common.numbers import percent
    from tui_llm.facts.report import table

    bets = ", ".join(f"{bet.percent} % on {visible_token(bet.token.text)}" for bet in made.bets) or "nothing"
    lines = [visible(note) for note in found.notes]
    lines += [f"you bet {bets}; the token is {visible_token(made.turn.token.text)}"]
    rows = [("you", made.probability, made.bits)]
    rows += zip((one.name for one in round.opponents), made.turn.probabilities, made.turn.bits, strict=True)
    lines += [
        table(("", "raw p", "bits"), [(visible(name), percent(p), f"{bits:.2f}") for name, p, bits in rows], left=(0,))
    ]
    likeliest = ", ".join(f"{visible_token(token.text)} {percent(p)}" for token, p in made.turn.favourites)
    return "\n".join([*lines, _wrapped(f"likeliest for {visible(round.weights.name)}, raw p: {likeliest}")])


def _width() -> int:
    import shutil

    return max(20, min(100, shutil.get_terminal_size().columns - 1))


def _wrapped(text: str) -> str:
    """`text`, made visible before, in lines that fit the terminal."""
    import textwrap

    return textwrap.fill(text, _width(), drop_whitespace=False, break_on_hyphens=False)


# ── the score ────────────────────────────────────────────────────────────────────────────────────────────────────


def score_text(game: GuessGame) -> str:
    from tui_llm.common.display import visible, visible_token
    from tui_llm.common.numbers import counted
    from tui_llm.facts.report import table

    count, round = len(game.guesses), game.round
    if not count:
        return "no token was guessed, so there is no score"
    names = ["you", *(visible(one.name) for one in round.opponents)]
    rows = [(name, f"{total / count:.2f}", f"{total:.2f}") for name, total in zip(names, game.totals, strict=True)]
    rows.append((f"uniform, log2 {round.weights.vocabulary:,}", f"{round.uniform:.2f}", f"{round.uniform * count:.2f}"))
    won = game.beaten()
    text = f"\nThe score on {counted(count, 'token')}; fewer bits are better\n"
    text += table(("", "bits per token", "bits in all"), rows, left=(0,))
    text += f"\n\nYou beat {names[-1]} at {len(won)} of {counted(count, 'token')}{':' if won else ''}"
    if won:
        beaten = [(visible_token(one.turn.token.text), f"{one.bits:.2f}", f"{one.turn.bits[-1]:.2f}") for one in won]
        text += "\n" + table(("token", "your bits", f"bits of {names[-1]}"), beaten, left=(0,))
    return text


def game_json(game: GuessGame) -> dict[str, Any]:
    from tui_llm.facts.report import finite, token_json

    count, round = len(game.guesses), game.round
    names = [one.name for one in round.opponents]
    won = {id(one) for one in game.beaten()}
    totals = dict(zip(["you", *names], game.totals, strict=True))
    return {
        "model": round.weights.name, "step": round.weights.step, "seed": round.seed, "source": round.source or None,
        "opponents": [{"name": one.name, "about": one.about} for one in round.opponents],
        "turns": [
            {
                "position": one.turn.position,
                "before": one.turn.before,
                "token": token_json(one.turn.token),
                "bets": [{**token_json(bet.token), "percent": bet.percent} for bet in one.bets],
                "choices": [token.id for token in one.turn.choices],
                "you": {"probability": one.probability, "bits": one.bits},
                "opponents": _opponents_json(names, one),
                "beaten": id(one) in won,
            }
            for one in game.guesses
        ],
        "total_bits": {name: finite(total) for name, total in totals.items()},
        "bits_per_token": {name: finite(total / count) if count else None for name, total in totals.items()},
        "uniform_bits": round.uniform,
        "beaten": len(won),
    }  # fmt: skip


def _opponents_json(names: list[str], made: Guess) -> dict[str, Any]:
    from tui_llm.facts.report import finite

    found = zip(names, made.turn.probabilities, made.turn.bits, strict=True)
    return {name: {"probability": p, "bits": finite(bits)} for name, p, bits in found}
