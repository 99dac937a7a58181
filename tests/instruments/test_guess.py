"""The guessing game: the score, typed bets, and the models' bits against references."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.byte_models import save_byte_model
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request, Target
from tui_llm.facts.tokens import Token
from tui_llm.instruments.guess.bets import needs_space, parse
from tui_llm.instruments.guess.game import MOST, GuessGame, probability
from tui_llm.instruments.guess.on_text import continues
from tui_llm.instruments.guess.passages import FILE, passages
from tui_llm.instruments.guess.question import Bet, BetsQuestion, GuessRound, RoundQuestion
from tui_llm.llm.hub import hub
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.predict.distribution import Processed
from tui_llm.llm.tokens.closed import ClosedTokenizer
from tui_llm.session import reading
from tui_llm.session.open_model import OpenModel, never

CARD = Path(__file__).resolve().parents[2] / "models" / "nano" / "README.md"


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


@pytest.fixture(scope="module")
def nano() -> OpenModel:
    model = OpenModel("cpu")
    model.open("nano")
    return model


@pytest.fixture(scope="module")
def char_engine(tmp_path_factory: pytest.TempPathFactory) -> PipelineEngine:
    """A small random GPT-2 over bytes."""
    shape = GPTConfig(vocabulary=257, context=64, layers=2, heads=2, width=32)
    folder = save_byte_model(tmp_path_factory.mktemp("models") / "tiny", shape, seed=5)
    engine = PipelineEngine("cpu")
    engine.open(str(folder))
    return engine


def token(id: int) -> Token:
    return Token(id, b"x", "x")


def test_a_vocabulary_of_some_characters_has_a_unigram_model_and_plays_its_own_text(tmp_path: Path) -> None:
    text = "Once upon a time upon a time"
    vocabulary = ClosedTokenizer("few", "char", sorted(set(text)))
    checkpoint.save(
        GPT(GPTConfig(vocabulary.size, context=64, layers=1, heads=2, width=16)), tmp_path, end_of_text=None
    )
    hub.save_vocabulary(vocabulary, tmp_path)
    engine = PipelineEngine("cpu")
    engine.open(str(tmp_path))
    round = engine.answer(RoundQuestion(Request(), text, 1, 3, 5))
    counts = Counter(char for one in passages() for char in one.text if char in text)
    for turn in round.turns:
        wanted = (counts[turn.token.text] + 1) / (counts.total() + vocabulary.size)
        assert turn.probabilities[0] == pytest.approx(wanted) and turn.bits[0] == pytest.approx(-math.log2(wanted))
    with pytest.raises(UserError, match="lacks some of the held-out paragraph"):
        engine.answer(RoundQuestion(Request(), None, 1, 3, 5))


# ── the score ──


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 20)), max_size=4),
)
def test_bets_are_a_probability_distribution(counts: list[int], laid: list[tuple[int, int]]) -> None:
    unigram = [count / sum(counts) for count in counts]
    bets = [Bet(token(id % len(counts)), percent) for id, percent in laid]
    given_to = [probability(bets, id, p) for id, p in enumerate(unigram)]
    assert sum(given_to) == pytest.approx(1) and min(given_to) > 0  # so every guess costs a finite number of bits


def test_the_worst_guess_is_finite_and_no_guess_is_unigrams(engine: PipelineEngine) -> None:
    round = engine.answer(RoundQuestion(Request(), seed=3, turns=2))
    game = GuessGame(round)
    wrong = next(one for one in round.turns[0].choices if one.id != round.turns[0].token.id)
    lost = game.guess([Bet(wrong, MOST)])
    assert lost.bits == pytest.approx(round.turns[0].bits[0] + math.log2(100))
    assert game.guess([]).bits == pytest.approx(round.turns[1].bits[0])
    assert game.turn is None and game.totals[0] == pytest.approx(lost.bits + round.turns[1].bits[0])


def test_beaten_are_the_tokens_with_fewer_bits(engine: PipelineEngine) -> None:
    game = GuessGame(engine.answer(RoundQuestion(Request(), seed=3, turns=4)))
    for turn in game.round.turns:
        game.guess([Bet(turn.token, MOST)] if turn.position % 2 else [])
    expected = [one.turn.position for one in game.guesses if one.bits < one.turn.bits[-1]]
    assert [one.turn.position for one in game.beaten()] == expected and expected


# ── the models' numbers ──


def check(engine: PipelineEngine, round: GuessRound) -> None:
    """Compares the open model's bits with torch's cross-entropy."""
    for turn in round.turns:
        ids = engine.tokenizer.encode(turn.before)
        with torch.inference_mode():
            logits = engine.gpt(torch.tensor([ids]))[0, -1].float()[: engine.tokenizer.size]
        nats = float(torch.nn.functional.cross_entropy(logits, torch.tensor(turn.token.id)))
        assert turn.bits[-1] == pytest.approx(nats / math.log(2), abs=2e-3)
        assert turn.probabilities[-1] == pytest.approx(math.exp(-nats), rel=2e-3)


def test_the_open_models_bits_are_torchs_cross_entropy(engine: PipelineEngine) -> None:
    round = engine.answer(RoundQuestion(Request(), seed=8, turns=5))
    assert [one.name for one in round.opponents] == ["unigram", "nano"]
    assert round.uniform == pytest.approx(math.log2(4096))
    check(engine, round)


@pytest.mark.parametrize("own", [False, True])
def test_unigram_is_add_one_over_the_other_paragraphs(engine: PipelineEngine, own: bool) -> None:
    text = "The cat sat on the mat. It was a sunny day, and the dog sat there too." if own else None
    round = engine.answer(RoundQuestion(Request(), text, seed=5, turns=3))
    played = [one for one in passages() if not own and round.turns[0].before in one.text]
    assert len(played) == (not own)
    counts = Counter(id for one in passages() if one not in played for id in engine.tokenizer.encode(one.text))
    size = counts.total() + engine.tokenizer.size
    assert sum((counts[id] + 1) / size for id in range(engine.tokenizer.size)) == pytest.approx(1)
    for turn in round.turns:
        assert turn.probabilities[0] == pytest.approx((counts[turn.token.id] + 1) / size)
        assert turn.bits[0] == pytest.approx(-math.log2((counts[turn.token.id] + 1) / size))


def test_nano_is_scored_on_the_text_of_another_models_token(
    engine: PipelineEngine, char_engine: PipelineEngine
) -> None:
    round = char_engine.answer(RoundQuestion(Request(), "A cat sat. Ünder é the mat", seed=2, turns=8))
    assert [one.name for one in round.opponents][:2] == ["unigram", "nano"] and len(round.opponents) == 3
    for turn in round.turns:
        assert turn.bits[1] == pytest.approx(-math.log2(turn.probabilities[1]))
        assert turn.token.bytes.decode() == turn.token.text  # half a character is never to be guessed
    check(char_engine, round)


def test_nano_knows_a_letter_inside_a_word_that_it_writes_as_one_token(nano: OpenModel) -> None:
    before = "You were affectionate and gene"
    loss = reading.read(nano, Request(prompt=before, target=Target(text="r"))).loss
    assert loss is not None and loss.sum > 10  # the token `r` is unlikely after `gene`
    assert continues(nano, before, "r", never) > 0.99  # the letter is not: generous


class Remembering:
    """A model that keeps all predictions: a hundred letters after one text take the same few passes."""

    def __init__(self, model: OpenModel) -> None:
        self.model, self.known = model, dict[tuple[int, ...], Processed]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def feed(self, ids: list[int], overtaken: Callable[[], bool]) -> None:
        if tuple(ids) not in self.known:
            self.model.feed(ids, overtaken)

    def prediction_at(self, request: Request, ids: list[int], position: int) -> Processed:
        assert position == len(ids)
        if tuple(ids) not in self.known:
            self.known[tuple(ids)] = self.model.prediction_at(request, ids, position)
        return self.known[tuple(ids)]


def test_the_letters_that_can_follow_have_all_of_the_probability(nano: OpenModel) -> None:
    for before in ("Once upon a ti", "A", "The dog."):
        model: Any = Remembering(nano)
        assert 0.97 < sum(continues(model, before, chr(one), never) for one in range(128)) < 1 + 1e-6  # “ and the end
    parts = math.prod(continues(nano, "The dog" + "s ran"[:at], "s ran"[at], never) for at in range(5))
    assert continues(nano, "The dog", "s ran", never) == pytest.approx(parts, rel=0.05)


def test_the_first_letters_of_a_text_are_a_sum_over_the_tokens_that_begin_with_them(nano: OpenModel) -> None:
    with torch.no_grad():
        logits = nano.gpt(torch.tensor([nano.ids(Request(prompt="", start_token=True))]))[
            0, -1, : nano.tokenizer.size
        ].double()
    begins = [id for id in range(nano.tokenizer.size - 1) if nano.bytes_of(id).startswith(b"On")]
    sums = float(torch.softmax(logits, 0)[begins].sum())
    assert sums < continues(nano, "", "On", never) < 1.01 * sums  # `O`, `n` adds a little


# ── which tokens ──


def test_the_seed_chooses_consecutive_tokens(engine: PipelineEngine) -> None:
    one, same, other = (engine.answer(RoundQuestion(Request(), seed=seed)) for seed in (1, 1, 2))
    assert one == same and one.turns[0].before != other.turns[0].before
    for turn, after in zip(one.turns, one.turns[1:], strict=False):
        assert after.before == turn.before + turn.token.text


def test_the_choices_are_alphabetical_and_do_not_depend_on_the_token(engine: PipelineEngine) -> None:
    start = "Once upon a time there was a little girl named Lily who loved to play in the"
    rounds = [engine.answer(RoundQuestion(Request(), start + end, seed=1, turns=1)) for end in (" park", " house")]
    found = [round.turns[0] for round in rounds]
    for turn in found:
        assert [one.text.strip().lower() for one in turn.choices] == sorted(
            one.text.strip().lower() for one in turn.choices
        )
        assert len(turn.choices) == 10
    assert found[0].before == found[1].before == start and found[0].token != found[1].token
    assert found[0].choices == found[1].choices and found[0].favourites == found[1].favourites
    ids = {one.id for one in found[0].choices}
    reading = engine.read(Request(prompt=found[0].before, top=10))
    assert reading.distribution is not None and ids == {row.id for row in reading.distribution.candidates}


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_without_a_token_to_guess_is_refused(engine: PipelineEngine, text: str) -> None:
    with pytest.raises(UserError, match="fewer than two tokens"):
        engine.answer(RoundQuestion(Request(), text))


def test_a_long_text_is_cut_to_the_context(engine: PipelineEngine) -> None:
    text = "".join(f"Line {number}: the cat é 🙂 sat on the mat.\n" for number in range(3000))
    round = engine.answer(RoundQuestion(Request(), text, seed=4, turns=200))
    assert 100 <= len(round.turns) <= 200
    last = round.turns[-1]
    assert len(engine.tokenizer.encode(last.before)) <= engine.window.context and last.before in text
    assert "�" not in last.before


@pytest.mark.parametrize(("turns", "choices"), [(0, 10), (201, 10), (10, -1), (10, 51)])
def test_numbers_out_of_range_are_refused(engine: PipelineEngine, turns: int, choices: int) -> None:
    with pytest.raises(UserError, match="give a number from"):
        engine.answer(RoundQuestion(Request(), None, 1, turns, choices))


# ── typed bets ──


def test_a_line_of_bets() -> None:
    assert [(bet.text, bet.percent) for bet in parse("mat 50 floor 20", MOST)] == [("mat", 50), ("floor", 20)]
    assert [(bet.text, bet.percent) for bet in parse("mat", MOST)] == [("mat", 50)]
    assert [(bet.text, bet.percent) for bet in parse("mat floor", MOST)] == [("mat", 25), ("floor", 25)]
    assert [(bet.text, bet.percent) for bet in parse("mat 60% floor", MOST)] == [("mat", 60), ("floor", 20)]
    assert [(bet.text, bet.percent, bet.join) for bet in parse("+ing 9 , 8 . 7", MOST)] == [
        ("ing", 9, True), (",", 8, True), (".", 7, True),
    ]  # fmt: skip
    assert [bet.text for bet in parse('" mat" 5 "50" 5 "\\n" 5 \\n 5 ·a 5 " 5', MOST)] == [
        " mat",
        "50",
        "\n",
        "\n",
        " a",
        '"',
    ]
    assert parse("#3 50", MOST)[0].choice == 3 and parse("", MOST) == parse("  ", MOST) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [("50", "no token before it"), ("mat 50 20", "no token before it"), ("mat 60 floor 40", "add up to 100 %"),
     ("mat 99 floor", "no percent is left"), (" ".join("abcdefghijklmnopqrstuvwxyz"), "at most 20"), ("mat 99999999999999999999", "add up")],
)  # fmt: skip
def test_a_line_that_cannot_be_read(line: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse(line, MOST)


@given(st.text(max_size=40))
def test_any_line_is_read_or_refused(line: str) -> None:
    try:
        assert sum(bet.percent for bet in parse(line, MOST)) <= MOST
    except UserError as error:
        assert "\n" not in str(error).replace(line, "")


def test_a_word_gets_the_space_that_it_has_in_the_text(engine: PipelineEngine) -> None:
    for before, text in (
        ("The cat sat on the", " The"),
        ("The cat\n", "The"),
        ('He said, "', "The"),
        ('He said "no"', " The"),
        ("well—", "The"),
    ):
        assert needs_space(before) is text.startswith(" ")
        found = engine.answer(BetsQuestion(Request(), "The 30", before))
        assert [(bet.token.text, bet.percent) for bet in found.bets] == [(text, 30)]


def test_several_tokens_are_noted_and_doubled_ones_added(engine: PipelineEngine) -> None:
    found = engine.answer(BetsQuestion(Request(), "xylophone 10 cat 20 ·cat 5 cat 0", "The"))
    assert "xylophone" in found.notes[0] and "tokens here; the bet is on the first" in found.notes[0]
    assert [bet.percent for bet in found.bets if bet.token.text == " cat"] == [25]
    choices = engine.answer(RoundQuestion(Request(), seed=1)).turns[0].choices
    assert engine.answer(BetsQuestion(Request(), "#2 40", "The", choices)).bets == (Bet(choices[1], 40),)
    with pytest.raises(UserError, match="no choice #11"):
        engine.answer(BetsQuestion(Request(), "#11", "The", choices))


def test_a_letter_is_a_letter_in_a_vocabulary_of_bytes(char_engine: PipelineEngine) -> None:
    found = char_engine.answer(BetsQuestion(Request(), 'm 30 "·" 5 " " 10', "the cat"))
    assert found.bets[0].token.bytes == b"m" and found.bets[-1].token.bytes == b" "


# ── what ships ──


def test_the_paragraphs_are_of_the_books_that_the_card_names_as_held_out() -> None:
    card = CARD.read_text(encoding="utf-8")
    assert len(passages()) == 48 and len({one.text for one in passages()}) == 48
    for one in passages():
        author, _, title = one.source.partition(", ")
        assert f"{author}, *{title.partition(' (')[0]}*" in card
        assert 200 <= len(one.text) <= 500
    assert "public domain" in FILE.read_text(encoding="utf-8")
