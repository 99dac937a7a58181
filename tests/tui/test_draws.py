"""Drawing tokens on the screen: undo of every change, ghost text, how each token was chosen, speed."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from draw_helpers import draw_tokens, make_engine
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, unsafe, until
from textual import events
from textual.pilot import Pilot

from tui_llm.facts.request import Request
from tui_llm.instruments.ghost.question import Ghost, GhostQuestion
from tui_llm.tui.kit.widgets.prompt import EDITABLE
from tui_llm.tui.lab.lab import LabScreen
from tui_llm.tui.lab.panes.generate import GeneratePane
from tui_llm.tui.state import history


def hint(lab: LabScreen) -> str:
    return lab.prompt._hint.plain


# ── undo and redo ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_undo_and_redo_over_every_change_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "BURST_SECONDS", math.inf)  # a word is one change, however slowly it is typed
    app = make_app(prompt="The")
    async with app.run_test(size=(200, 40)) as pilot:  # the line under the prompt has room for ghost text's keys too
        lab, state = app.lab_screen, app.lab_screen.lab
        await answered(pilot, lab)
        await pilot.press("space", "c", "a", "t")  # typed
        lab.prompt.post_message(events.Paste(" sat on the"))  # pasted
        await answered(pilot, lab)
        assert "ctrl+z removes ‘ sat on the’" in hint(lab)
        await pilot.press("escape", "5")
        await draw_tokens(pilot, lab, 2)  # drawn
        two = state.steps
        assert f"u removes ‘{two[1].text}’" in hint(lab)
        await pilot.press("enter")  # accepted into the prompt
        await answered(pilot, lab)
        typed = "The cat sat on the" + "".join(step.text for step in two)
        assert state.prompt == typed and "into drawn tokens" in hint(lab)
        await draw_tokens(pilot, lab, 1)
        await pilot.press("c")  # cleared
        await answered(pilot, lab)
        trail = []
        for _ in range(9):
            trail.append((state.prompt, state.steps))
            if state.history.next_undo is None:
                break
            await pilot.press("u")
            await answered(pilot, lab)
            assert lab.prompt.prompt_text == state.prompt
            assert lab.reading is not None and lab.reading.request.continuation == state.continuation
            assert "undone: " in hint(lab) and "U " in hint(lab)
        assert [text for text, _ in trail] == [typed, typed, typed, "The cat sat on the", "The cat sat on the", "The cat sat on the", "The cat", "The"]  # fmt: skip
        assert trail[3][1] == two and trail[3][1][0] is two[0]  # ids and readings are the earlier ones
        await pilot.press("u")  # nothing more to undo: a message
        assert state.prompt == "The"
        for text, steps in reversed(trail[:-1]):
            await pilot.press("U")
            await answered(pilot, lab)
            assert (state.prompt, state.steps) == (text, steps)
        await pilot.press("U")
        assert (state.prompt, state.steps) == trail[0]


async def test_undo_while_typing_puts_the_cursor_where_the_change_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "BURST_SECONDS", math.inf)  # a word is one change, however slowly it is typed
    app = make_app(prompt="one three")
    async with app.run_test(size=(80, 24)) as pilot:
        lab, prompt = app.lab_screen, app.lab_screen.prompt
        await answered(pilot, lab)
        prompt.move_cursor((0, 3))
        await pilot.press("space", "t", "w", "o")
        await answered(pilot, lab)
        await pilot.press("ctrl+z")
        await pilot.pause()
        assert prompt.prompt_text == "one" + " three" and prompt.cursor_location == (0, 3)
        await pilot.press("ctrl+y")
        await pilot.pause()
        assert prompt.prompt_text == "one two three" and prompt.cursor_location[1] in (7, 8)
        await pilot.press("ctrl+z", "x")
        await answered(pilot, lab)
        assert lab.lab.prompt == "onex three" and lab.lab.history.next_redo is None


async def test_redo_past_a_folded_paste() -> None:
    app = make_app(prompt="before")
    async with app.run_test(size=(80, 24)) as pilot:
        lab, prompt = app.lab_screen, app.lab_screen.prompt
        await answered(pilot, lab)
        prompt.post_message(events.Paste("x" * (EDITABLE + 1)))
        await pilot.pause()
        await pilot.press("y")
        await answered(pilot, lab)
        for key, text in (
            ("ctrl+z", "before" + "x" * (EDITABLE + 1)),
            ("ctrl+z", "before"),
            ("ctrl+y", "before" + "x" * (EDITABLE + 1)),
            ("ctrl+y", "before" + "x" * (EDITABLE + 1) + "y"),
        ):
            await pilot.press(key)
            await answered(pilot, lab)
            assert prompt.prompt_text == lab.lab.prompt == text
        assert prompt.folded
        await pilot.press("ctrl+l")  # and the dropped tokens come back
        await answered(pilot, lab)
        await pilot.press("ctrl+z")
        await answered(pilot, lab)
        assert lab.lab.prompt == "before" + "x" * (EDITABLE + 1) + "y"


async def test_a_stream_is_undone_at_once_and_another_model_forgets_its_tokens() -> None:
    engine = make_engine()
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "5", "space")
        await until(pilot, lambda: lab.generation.job is None and len(lab.lab.steps) == 256)
        assert "u removes 256 tokens" in hint(lab)
        await pilot.press("u")
        assert lab.lab.steps == () and "U adds 256 tokens" in hint(lab)
        lab.models.open("other")
        await until(pilot, lambda: lab.weights is not None and lab.weights.name == "other")
        await pilot.press("U")
        assert lab.lab.steps == ()


async def test_the_undo_hint_shows_hostile_text_safely() -> None:
    app = make_app(FakeEngine(hostile=True), prompt="a")
    async with app.run_test(size=(200, 40)) as pilot:  # room for what the line says of ghost text too
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.prompt.post_message(events.Paste("\x1b]0;owned\x07[/][red]\u202eabc\x9b31m\u0301"))
        await until(pilot, lambda: "[/][red]" in hint(lab))
        assert not unsafe(drawn(app))
        await pilot.press("ctrl+z")
        await answered(pilot, lab)
        assert not unsafe(drawn(app))


# ── ghost text ───────────────────────────────────────────────────────────────────────────────────────────────────


async def with_ghost(pilot: Pilot[None], lab: LabScreen) -> None:
    await answered(pilot, lab)
    await until(pilot, lambda: lab.prompt.suggestion)


async def test_ghost_text_is_accepted_by_token_by_word_and_as_a_whole() -> None:
    engine = make_engine()

    def ghost(question: GhostQuestion) -> Ghost:
        assert engine.weights is not None
        rest, done = [" ma", "t", " and", " then", ".\n", "[/]\x1b"], question.request.prompt[len("The") :]
        while rest and done:
            done = done[len(rest.pop(0)) :]
        return Ghost(engine.weights, tuple(rest))

    engine.answers[GhostQuestion] = ghost
    app = make_app(engine, prompt="The")
    async with app.run_test(size=(120, 40)) as pilot:
        lab, prompt = app.lab_screen, app.lab_screen.prompt
        await with_ghost(pilot, lab)
        assert any("The mat and then.␊[/]␛" in line for line in drawn(app)) and not unsafe(drawn(app))
        assert "→ accepts a ghost token" in hint(lab)
        await pilot.press("right")
        assert prompt.prompt_text == "The ma" and prompt.ghost[0] == "t"
        await pilot.press("t")  # typed, and just what was expected
        assert prompt.ghost == (" and", " then", ".\n", "[/]\x1b")
        await pilot.press("alt+right")
        assert prompt.prompt_text == "The mat and"
        await pilot.press("end")
        assert prompt.prompt_text == "The mat and then.\n[/]\x1b" and not prompt.ghost
        await answered(pilot, lab)
        assert lab.lab.prompt == prompt.prompt_text
        await pilot.press("ctrl+z")
        await answered(pilot, lab)
        assert prompt.prompt_text == "The mat and"


async def test_ghost_keys_move_the_cursor_without_ghost_text() -> None:
    engine = make_engine()
    app = make_app(engine, prompt="ab cd")
    async with app.run_test(size=(120, 40)) as pilot:
        lab, prompt = app.lab_screen, app.lab_screen.prompt
        await with_ghost(pilot, lab)
        await pilot.press("home")
        await pilot.pause()
        assert not prompt.suggestion
        await pilot.press("right")
        assert prompt.cursor_location == (0, 1)
        await pilot.press("alt+right")
        assert prompt.cursor_location == (0, 2)
        await pilot.press("end")
        await pilot.pause()
        assert prompt.cursor_location == (0, 5) and prompt.prompt_text == "ab cd"
        assert prompt.suggestion  # at the end the suggestion still fits
        await pilot.press("shift+right")
        assert prompt.prompt_text == "ab cd"
        # otherwise a new suggestion may arrive in time
        engine.answers[GhostQuestion] = lambda question: Ghost(engine.weights, ())
        await pilot.press("x")
        assert not prompt.ghost


async def test_ghost_text_can_be_off_and_does_not_show_without_typing() -> None:
    engine = make_engine()
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await with_ghost(pilot, lab)
        assert engine.ghosts[-1].request.prompt == "The cat sat on the"
        await pilot.press("escape", "G")
        assert not lab.ghost_text.on and not lab.prompt.suggestion
        await pilot.press("i", "x")
        await answered(pilot, lab)
        assert lab.ghost_text._timer is None
        await pilot.press("escape", "G", "i")
        await until(pilot, lambda: lab.prompt.suggestion)
        await pilot.press("escape")
        await pilot.pause()
        assert not any(lab.prompt.suggestion in line for line in drawn(app)[:4])


# ── how each token was chosen ────────────────────────────────────────────────────────────────────────────────────


async def test_each_token_keeps_how_it_was_chosen() -> None:
    app = make_app(make_engine())
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "5")
        await draw_tokens(pilot, lab, 1)
        await pilot.press("right_square_bracket", "r")
        await draw_tokens(pilot, lab, 1)
        pane = lab.query_one(GeneratePane)
        first, second = lab.lab.steps
        assert (first.sampler.temperature, second.sampler.temperature) == (0.8, 0.9)
        assert first.seed == 1 and second.seed == lab.lab.seed
        assert pane.cursor == 1
        screen = "\n".join(drawn(app))
        assert (
            f"from {second.kept} tokens" in screen
            and "by p(T=0.9, top-p 0.9)" in screen
            and f"{second.u:.4f}" in screen
        )
        assert "tokens/s" in screen
        await pilot.press("left")
        screen = "\n".join(drawn(app))
        assert pane.cursor == 0 and "step 1 chose from" in screen and "(T=0.8, top-p 0.9" in screen
        await pilot.press("right")
        assert pane.cursor == 1
        rows = list(pane.table())
        assert rows[1][-2:] == ("T=0.8, top-p 0.9", "1")


async def test_the_speed_is_measured() -> None:
    from tui_llm.tui.state.generation import SPEED_TOKENS, Generation

    clock = iter([10.0, *(10.0 + 0.5 * (at + 1) for at in range(40))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tui_llm.tui.state.generation.time", SimpleNamespace(perf_counter=lambda: next(clock)))
        generation = Generation(1, Request(), 1, 9)
        assert generation.speed is None
        generation.begin()
        assert generation.speed is None
        for count in range(40):
            generation.took([None])  # type: ignore[list-item]
            assert generation.speed == pytest.approx(2.0)
            generation.begin()
            assert len(generation._times) == min(count + 2, SPEED_TOKENS + 1)
