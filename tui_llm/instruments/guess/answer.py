"""Choose the tokens to guess, and compute what each model gives to them."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.facts.tokens import Token
from tui_llm.instruments.answers import answers
from tui_llm.instruments.guess.bets import TypedBet, needs_space, parse
from tui_llm.instruments.guess.game import MOST
from tui_llm.instruments.guess.on_text import continues
from tui_llm.instruments.guess.passages import Passage, passages
from tui_llm.instruments.guess.question import (
    MOST_CHOICES,
    MOST_TURNS,
    Bet,
    Bets,
    BetsQuestion,
    GuessRound,
    GuessTurn,
    Opponent,
    RoundQuestion,
)
from tui_llm.session.open_model import OpenModel

NANO = "nano"
_GIVEN = 24  # tokens that are shown before the first to guess, if the text has that many
_LONGEST = 20_000  # characters of a longer text that the tokens are chosen from
_COUNTS, _NANO = "guess: counts", "guess: nano"  # keys of the caches


@answers(RoundQuestion)
def deal(open_model: OpenModel, question: RoundQuestion, overtaken: Callable[[], bool]) -> GuessRound:
    """Raises `UserError` if the text is too short, or a number is out of its range; and `Overtaken`."""
    for name, value, least, most in (
        ("turns", question.turns, 1, MOST_TURNS),
        ("choices", question.choices, 0, MOST_CHOICES),
    ):
        if not least <= value <= most:
            raise UserError(f"{name} is {value}; give a number from {least} to {most}")
    chance = random.Random(question.seed)
    passage = chance.choice(passages()) if question.text is None else Passage(_part(question.text, chance), "")
    request = _request(question.request, passage.text)
    ids, places = _places(open_model, request, question.turns, chance)
    open_model.feed(ids, overtaken)
    scores = open_model.window.scores(overtaken)
    unigram, about = _unigram(open_model, passage)
    weights, nano = open_model.weights(), _nano(open_model)
    turns = []
    for place in places:
        if overtaken():
            raise Overtaken
        token, before = open_model.token(ids[place], ids[place - 1]), _text(open_model, ids[:place])
        found = [(p := unigram(token.id), -math.log2(p))]
        if nano is not None:
            p = continues(nano, before, token.text, overtaken)
            found.append((p, -math.log2(p)))
        score = scores[place - 1]
        found.append((score.probability, score.surprisal / math.log(2)))
        choices, favourites = _likeliest(open_model, request, ids, place, question.choices)
        ps, bits = tuple(p for p, _ in found), tuple(bits for _, bits in found)
        turns.append(GuessTurn(place, before, token, ps, bits, choices, favourites))
    opponents = [Opponent("unigram", about)]
    if nano is not None:
        opponents.append(
            Opponent(
                _label(NANO, weights),
                "the shipped model: that the text goes on with these letters, in any tokens of its own",
            )
        )
    opponents.append(Opponent(weights.name, "the open model"))
    uniform = math.log2(open_model.tokenizer.size)
    return GuessRound(weights, question.seed, passage.source, uniform, tuple(opponents), tuple(turns))


@answers(BetsQuestion)
def read_bets(open_model: OpenModel, question: BetsQuestion, overtaken: Callable[[], bool]) -> Bets:
    """Raises `UserError` for a line that can't be read."""
    laid: dict[int, Bet] = {}
    notes: list[str] = []
    for typed in parse(question.line, MOST):
        token = _token(open_model, typed, question, notes)
        before = laid[token.id].percent if token.id in laid else 0
        laid[token.id] = Bet(token, before + typed.percent)
    return Bets(tuple(bet for bet in laid.values() if bet.percent), tuple(notes))


def _token(open_model: OpenModel, typed: TypedBet, question: BetsQuestion, notes: list[str]) -> Token:
    if typed.choice is not None:
        if not 1 <= typed.choice <= len(question.choices):
            raise UserError(f"there is no choice #{typed.choice}; they are numbered from 1 to {len(question.choices)}")
        return question.choices[typed.choice - 1]
    tokenizer, text, ids = open_model.tokenizer, typed.text, []
    if not typed.join and needs_space(question.before) and not text.startswith(" "):
        ids = tokenizer.encode_after(" " + text)
        if ids and not open_model.bytes_of(ids[0]).strip():  # the space is a token of its own here, as for characters
            ids = []
    ids = ids or tokenizer.encode_after(text)
    if not ids:
        raise UserError(f"{text[:40]!r} has no token in this vocabulary; guess another")
    token = open_model.token(ids[0])
    if len(ids) > 1:
        notes.append(f"{text[:40]!r} is {len(ids)} tokens here; the bet is on the first, {token.text!r}")
    return token


# ── the text ──


def _request(settings: Request, text: str) -> Request:
    return dataclasses.replace(settings, prompt=text, continuation=(), position=None, target=None, tokenizer=None,
                               overrides=(), chat=False, sampler=SamplerSettings())  # fmt: skip


def _part(text: str, chance: random.Random) -> str:
    """`text`, or a part of a long one, from the beginning of a word."""
    if len(text) <= _LONGEST:
        return text
    part = text[chance.randrange(len(text) - _LONGEST + 1) :][:_LONGEST]
    return part.split(maxsplit=1)[-1] if not part[0].isspace() else part.lstrip()


def _places(
    open_model: OpenModel, request: Request, turns: int, chance: random.Random
) -> tuple[list[int], Sequence[int]]:
    """The ids to feed, at most the context, and which of them are to be guessed: those that are whole characters."""
    ids, first = open_model.ids(request), int(request.start_token)
    places = [at for at in range(first + 1, len(ids)) if _whole(open_model.token(ids[at], ids[at - 1]))]
    if not places:
        raise UserError("the text has fewer than two tokens, so there is none to guess; give a longer text")
    turns = min(turns, len(places))
    last = len(places) - turns
    least = next((index for index, at in enumerate(places) if at >= first + _GIVEN), last)
    begin = chance.randint(min(least, last), last)
    chosen = places[begin : begin + turns]
    context = open_model.window.context
    chosen = [at for at in chosen if at - chosen[0] <= context - 2]  # the first needs a token before it
    start = max(0, chosen[-1] + 1 - context)
    while start and start < chosen[0] - 1 and not _whole(open_model.token(ids[start])):
        start += 1
    return ids[start : chosen[-1] + 1], [at - start for at in chosen]


def _whole(token: Token) -> bool:
    """Whether a player can type the token: it is text by itself."""
    try:
        return bool(token.bytes.decode()) and not token.special
    except UnicodeDecodeError:
        return False


def _text(open_model: OpenModel, ids: Sequence[int]) -> str:
    """The text of `ids` without special tokens."""
    pairs = zip((None, *ids), ids, strict=False)
    kept = (open_model.bytes_of(id, before) for before, id in pairs if not open_model.tokenizer.is_special(id))
    return b"".join(kept).decode("utf-8", errors="replace")


# ── the models ──


def _unigram(open_model: OpenModel, played: Passage) -> tuple[Callable[[int], float], str]:
    """The unigram model of the shipped paragraphs without the one that is played, add-one smoothed; and what it is of."""
    known: dict[Passage, Counter[int]] | None = open_model.remembered.get(_COUNTS)
    if known is None:
        known = {one: Counter(open_model.tokenizer.encode(one.text)) for one in passages()}
        open_model.remembered[_COUNTS] = known
    used = [counts for one, counts in known.items() if one.text != played.text]
    total = sum(counts.total() for counts in used)
    size = total + open_model.tokenizer.size

    def probability(id: int) -> float:
        return (sum(counts[id] for counts in used) + 1) / size

    return probability, f"each token's count + 1 in {total:,} tokens of {len(used)} other held-out paragraphs"


def _label(name: str, weights: Weights) -> str:
    """A name that the open model does not have."""
    return f"{name} (shipped)" if weights.name == name else name


def _nano(open_model: OpenModel) -> OpenModel | None:
    """The shipped nano, unless that is the open model."""
    from tui_llm.llm.hub import lookup

    weights = open_model.weights()
    if weights.name == NANO and lookup.find(NANO).kind == "shipped" and weights.step is None:
        return None
    if _NANO not in open_model.screen_cache:
        nano = OpenModel("cpu")
        nano.open(NANO)
        open_model.screen_cache[_NANO] = nano
    found: OpenModel = open_model.screen_cache[_NANO]
    return found


def _likeliest(
    open_model: OpenModel, request: Request, ids: list[int], place: int, count: int
) -> tuple[tuple[Token, ...], tuple[tuple[Token, float], ...]]:
    """The open model's `count` likeliest tokens that can be typed, in alphabetical order; and its three likeliest."""
    processed = open_model.prediction_at(request, ids, place)
    rows = processed.distribution(count + 20, open_model.bytes_after(ids[:place])).candidates
    found = [(open_model.token(row.id, ids[place - 1]), row.raw_probability) for row in rows]
    typed = [token for token, _ in found if _whole(token)][:count]
    return tuple(sorted(typed, key=lambda token: (token.text.strip().lower(), token.text, token.id))), tuple(found[:3])
