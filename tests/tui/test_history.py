"""Undo and redo of the text, against a plain list of all its states."""

from __future__ import annotations

from helpers import answered, drawn, make_app
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tui_llm.facts.prediction import GeneratedToken
from tui_llm.tui.lab.ghost_text import HINT
from tui_llm.tui.lab.undo import words
from tui_llm.tui.state import history
from tui_llm.tui.state.history import History, difference

HOSTILE = "[/]\x1b]0;x\x07[red]\u202eabc\u0301漢\ud83d"
TEXT = st.text(st.sampled_from("ab \n" + HOSTILE), max_size=12)


def token(id: int, index: int = 0) -> GeneratedToken:
    return GeneratedToken(index, id, b"x", f"t{id}", 0.5, 0.1, 0.1, 1, ())


STEPS = st.lists(st.integers(0, 3).map(token), max_size=6).map(tuple)


@given(TEXT, STEPS, TEXT, STEPS)
def test_a_change_can_be_undone_and_redone(a: str, before: history.Steps, b: str, after: history.Steps) -> None:
    change = difference(a, before, b, after)
    assert change.apply(a, before) == (b, after)
    assert change.inverse().apply(b, after) == (a, before)
    assert len(change.removed) <= len(a) and len(change.inserted) <= len(b)
    shown = words(change)
    assert shown.isprintable() or "\n" in shown


class Texts(RuleBasedStateMachine):
    """Changes far apart in time, so that none are merged and each is one undo step."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History("start")
        self.states: list[tuple[str, history.Steps]] = [("start", ())]
        self.at = 0
        self.clock = 0.0

    @rule(text=TEXT, steps=STEPS)
    def change(self, text: str, steps: history.Steps) -> None:
        self.clock += 100
        if self.history.record(text, steps, now=self.clock):
            assert (text, steps) != self.states[self.at]
            self.states = [*self.states[: self.at + 1], (text, steps)]
            self.at += 1
        else:
            assert (text, steps) == self.states[self.at]

    @precondition(lambda self: self.at > 0)
    @rule()
    def undo(self) -> None:
        assert self.history.undo() is not None
        self.at -= 1

    @precondition(lambda self: self.at < len(self.states) - 1)
    @rule()
    def redo(self) -> None:
        assert self.history.redo() is not None
        self.at += 1

    @invariant()
    def is_where_it_should_be(self) -> None:
        assert (self.history.prompt, self.history.steps) == self.states[self.at]
        assert (self.history.next_undo is None) == (self.at == 0)
        assert (self.history.next_redo is None) == (self.at == len(self.states) - 1)


TestTexts = Texts.TestCase
TestTexts.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, STEPS, st.floats(0, 3), st.sampled_from([None, 1, 2])), max_size=15))
def test_bursts_of_changes_undo_to_the_start_and_redo(
    changes: list[tuple[str, history.Steps, float, int | None]],
) -> None:
    found, clock = History("start"), 0.0
    for text, steps, later, burst in changes:
        clock += later
        found.record(text, steps, burst, now=clock)
    end = (found.prompt, found.steps)
    backs = 0
    while found.undo():
        backs += 1
    assert (found.prompt, found.steps) == ("start", ())
    while found.redo():
        backs -= 1
    assert (found.prompt, found.steps) == end and backs == 0


def test_a_word_is_one_change_and_a_pause_ends_it() -> None:
    found = History()
    for at in range(1, 9):
        found.record("the cat "[:at], (), now=at / 10)
    found.record("the cat s", (), now=50)
    undone = []
    while change := found.undo():
        undone.append(change.inserted)
    assert undone == ["s", " ", " cat", "the"]


def test_letters_deleted_one_by_one_are_one_change() -> None:
    found = History("word")
    for at, text in enumerate(("wor", "wo", "w", "")):
        found.record(text, (), now=at / 10)
    change = found.undo()
    assert change is not None and found.prompt == "word" and found.undo() is None


def test_a_stream_is_one_change_and_two_streams_are_two() -> None:
    found, steps = History("p"), tuple(token(id, id) for id in range(6))
    for end in (2, 4):
        found.record("p", steps[:end], burst=1)
    for end in (5, 6):
        found.record("p", steps[:end], burst=2)
    found.undo()
    assert found.steps == steps[:4]
    found.undo()
    assert found.steps == ()
    found.redo()
    found.redo()
    assert found.steps == steps and found.steps[0] is steps[0]  # the same objects, with their readings


def test_memory_is_bounded_and_the_last_change_can_always_be_undone() -> None:
    found = History()
    for number in range(50):
        found.record(str(number) * 300_000, (), now=number * 100.0)
    assert found._size <= history.MOST_SIZE and found.next_undo is not None
    huge = "x" * (2 * history.MOST_SIZE)
    found.record(huge, (), now=1e6)
    assert found.undo() is not None and found.prompt == "49" * 300_000
    for number in range(history.MOST_CHANGES + 50):
        found.record(f"{number}", (), now=1e7 + number * 100)
    assert len(found._undo) <= history.MOST_CHANGES


def test_another_model_forgets_drawn_tokens_but_not_what_was_typed() -> None:
    found = History("a")
    found.record("ab", (), now=0)
    found.record("ab", (token(1),), now=100)
    found.record("abc", (), now=200)
    found.record("abc", (token(2),), now=300)
    found.forget_steps()
    assert found.steps == ()
    assert found.undo() is not None and (found.prompt, found.steps) == ("ab", ())
    assert found.undo() is not None and (found.prompt, found.steps) == ("a", ())
    assert found.undo() is None


async def test_no_part_of_the_line_under_the_prompt_is_cut() -> None:
    app = make_app(prompt="")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        app.lab_screen.undo.hint = lambda: HINT
        await pilot.press(*"word")
        await answered(pilot, app.lab_screen)
        line = next(line for line in drawn(app) if "New here?" in line)
        assert f" · {HINT} ━" in line  # and not the first characters of what ctrl+z does
