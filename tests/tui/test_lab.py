"""The lab with a fake engine: all panes show the same state, newer requests supersede older ones, generation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_engine import CONTEXT, FakeEngine
from helpers import answered, drawn, make_app, unsafe, until
from textual import events

from tests import HANG
from tui_llm.facts.request import Target
from tui_llm.tui.kit import key_order
from tui_llm.tui.lab.panes.generate import GeneratePane
from tui_llm.tui.lab.panes.logits import LogitsPane
from tui_llm.tui.models.models import ModelsScreen
from tui_llm.tui.runs.new_run import NewRunScreen

SIZES = [(1, 1), (2, 2), (30, 8), (80, 24), (120, 40), (200, 60)]
ALL_KEYS = [
    "1",
    "2",
    "3",
    "4",
    "5",
    "b",
    "b",
    "v",
    "v",
    "v",
    "x",
    "o",
    "g",
    "g",
    "u",
    "r",
    "s",
    "z",
    "z",
    "left_square_bracket",
    "right_square_bracket",
    "left_curly_bracket",
    "right_curly_bracket",
    "2",
    "down",
    "down",
    "enter",
    "end",
    "home",
    "pagedown",
    "5",
    "up",
    "d",
    "tab",
    "shift+tab",
]


async def test_five_panes_show_one_reading() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        screen = "\n".join(drawn(app))
        for word in (
            "5 tokens",
            "·cat",
            "e^logit",
            "raw p",
            "p(T=0.8)",
            "cut: p(T=0.8)",
            "kept",
            "entropy",
            "loss = logsumexp − logit",
            "perplexity",
            "ln V",
            "4 Training",
            "seed",
            "temperature",
        ):
            assert word in screen
        await pilot.press("!")
        await answered(pilot, app.lab_screen)
        assert "6 tokens" in "\n".join(drawn(app))


async def test_small_screens_show_one_pane_and_number_keys_reach_all() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape")
        for key, name in zip("12345", ("tokens", "logits", "loss", "training", "generate"), strict=True):
            await pilot.press(key)
            await pilot.pause()
            assert [pane.id for pane in lab.query("#panes > *") if pane.display] == [name]
        seen = set()
        for _ in range(6):
            await pilot.press("tab")
            await pilot.pause()
            seen.add(lab._place(lab.focused))
        assert seen == {"prompt", "tokens", "logits", "loss", "training", "generate"}


USUAL = ((80, 24), (120, 40))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_lab_survives_any_size_and_text(size: tuple[int, int]) -> None:
    prompt = (
        "[/] [red]x [link='x [/usr/bin] \x1b]0;x\x07 \x9b31m \u202eabc 👩\u200d👩\u200d👧 e\u0301 \ud83d <|endoftext|>"
    )
    app = make_app(FakeEngine(hostile=True), prompt=prompt)
    async with app.run_test(size=size) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape")
        # each key repaints the screen, which is slow for large sizes
        for key in ALL_KEYS if size in USUAL else ALL_KEYS[::3]:
            await pilot.press(key)
        await answered(pilot, lab)
        assert not unsafe(drawn(app))
        for key in ("m", "question_mark", "t", "ctrl+p"):
            await pilot.press(key)
            await pilot.pause()
            assert not unsafe(drawn(app))
            await pilot.press("escape")
            await pilot.pause()


async def test_the_newest_request_wins_and_stale_panes_say_so() -> None:
    engine = FakeEngine()
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        engine.gate.clear()
        before = len(engine.requests)
        await pilot.press(*" black and white")
        await until(pilot, lambda: lab.query_one(LogitsPane).stale)
        assert "2 Logits & softmax …" in "\n".join(drawn(app))
        engine.gate.set()
        await answered(pilot, lab)
        assert not lab.query_one(LogitsPane).stale
        assert lab.reading is not None and lab.reading.request.prompt == "The cat sat on the black and white"
        assert len(engine.requests) - before <= len(" black and white")


async def test_sampler_changes_reach_the_table() -> None:
    app = make_app()
    async with app.run_test(size=(160, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", *["left_square_bracket"] * 9)
        await answered(pilot, lab)
        assert lab.lab.sampler.greedy
        screen = "\n".join(drawn(app))
        assert "greedy" in screen and "p(greedy" in screen
        await pilot.press(*["left_curly_bracket"] * 20, "right_square_bracket")
        await answered(pilot, lab)
        assert lab.lab.sampler.top_p == 0 and lab.reading is not None and lab.reading.distribution is not None
        assert lab.reading.distribution.kept == 1


async def test_enter_on_a_row_makes_it_the_target() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "2", "home", "down", "down", "down", "enter")
        await answered(pilot, lab)
        table = lab.query_one(LogitsPane)
        assert table.distribution is not None and table.selected is not None
        assert lab.lab.target == Target(id=table.selected.id)
        assert lab.reading is not None and lab.reading.loss is not None
        assert lab.reading.loss.tokens[0].loss.rank == table.selected.rank == 4


async def test_a_typed_target_and_its_leading_space() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "t")
        await pilot.pause()
        await pilot.press("ctrl+u", *"dog on", "enter")
        await pilot.pause()
        assert lab.lab.target == Target(text="dog on")
        await pilot.press("s")
        await answered(pilot, lab)
        assert lab.lab.target == Target(text=" dog on")
        assert lab.reading is not None and lab.reading.loss is not None and len(lab.reading.loss.tokens) == 2


async def test_an_empty_prompt_is_reported() -> None:
    app = make_app(prompt="")
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        assert "\n".join(drawn(app)).count("the first token has no prediction") == 2
        await pilot.press("escape", "o")
        await answered(pilot, lab)
        assert "the first token has no prediction" not in "\n".join(drawn(app))


async def test_one_token_at_a_time_equals_a_stream_and_undo_returns() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape")
        for count in range(1, 4):
            await pilot.press("g")
            await until(pilot, lambda: len(lab.lab.steps) == count and lab.generation.job is None)  # noqa: B023
        one_by_one = lab.lab.steps
        await pilot.press("u", "g")
        await until(pilot, lambda: len(lab.lab.steps) == 3 and lab.generation.job is None)
        assert lab.lab.steps == one_by_one
        await pilot.press("c")
        await answered(pilot, lab)
        assert lab.lab.steps == ()
        await pilot.press("space")
        await until(pilot, lambda: lab.generation.job is None)
        assert lab.lab.steps[:3] == one_by_one and len(lab.lab.steps) == 256
        assert lab.reading is not None
        assert lab.reading.request.continuation == lab.lab.continuation  # all panes show the state after it


async def test_a_stream_stops_at_once() -> None:
    engine = FakeEngine()
    engine.hold_after = 20
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "space")
        await until(pilot, lambda: lab.lab.steps)
        assert lab.lab.streaming and "▌" in "\n".join(drawn(app))
        await pilot.press("space")
        assert not lab.lab.streaming
        known = lab.lab.steps
        await until(pilot, lambda: lab.context.client._generation is None)
        await pilot.pause()
        assert lab.lab.steps == known  # tokens drawn after the stop are dropped


async def test_a_stream_is_shown_in_few_readings() -> None:
    """At most ten repaints per second: many fewer readings than tokens if tokens arrive quickly."""
    engine = FakeEngine()
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        engine.requests.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tui_llm.tui.state.engine_client.REPAINT_SECONDS", 3600.0)
            await pilot.press("escape", "space")
            await until(pilot, lambda: lab.generation.job is None and len(lab.lab.steps) == 256)
        assert len(engine.requests) <= 2


async def test_generated_text_is_kept_or_dropped() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "5", "g")
        await until(pilot, lambda: lab.lab.steps and lab.generation.job is None)
        text = lab.lab.generated_text
        await pilot.press("enter")
        await answered(pilot, lab)
        assert lab.lab.prompt == lab.prompt.prompt_text == "The cat sat on the" + text
        assert lab.lab.steps == () and "encoded again" in "\n".join(drawn(app))
        await pilot.press("g")
        await until(pilot, lambda: lab.lab.steps and lab.generation.job is None)
        await pilot.press("i", "x")
        await answered(pilot, lab)
        assert lab.lab.steps == () and "prompt changed" in lab.lab.note


async def test_a_step_shows_the_candidates_it_was_drawn_from() -> None:
    app = make_app()
    async with app.run_test(size=(200, 60)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "5", "g")
        await until(pilot, lambda: len(lab.lab.steps) == 1 and lab.generation.job is None)
        await pilot.press("g")
        await until(pilot, lambda: len(lab.lab.steps) == 2 and lab.generation.job is None)
        pane = lab.query_one(GeneratePane)
        assert pane.cursor == 1 and "step 2 chose from" in "\n".join(drawn(app))
        await pilot.press("up")
        assert pane.cursor == 0
        await pilot.pause()
        assert "step 1 chose from" in "\n".join(drawn(app))


async def test_a_prompt_longer_than_the_context_is_reported() -> None:
    app = make_app(prompt="the cat " * CONTEXT)
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        assert f"sees the last {CONTEXT} of {2 * CONTEXT + 1} tokens" in "\n".join(drawn(app))


async def test_a_vocabulary_that_needs_a_network() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "v", "v", "v")
        await answered(pilot, lab)
        assert lab.lab.tokenizer == "o200k_base"
        assert "o200k_base is not on this machine [/]" in "\n".join(drawn(app))


async def test_special_tokens_typed_are_text_until_toggled() -> None:
    app = make_app(prompt="<|endoftext|>x")
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        assert "is plain text" in "\n".join(drawn(app))
        await pilot.press("escape", "x")
        await answered(pilot, lab)
        assert lab.reading is not None and lab.reading.request.allow_special
        assert "is the special token" in "\n".join(drawn(app))


async def test_copy_and_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(FakeEngine(hostile=True))
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "2", "y")
        rows = [line.split("\t") for line in app.clipboard.splitlines()]
        assert rows[0][:4] == ["rank", "id", "bytes", "text"] and {len(row) for row in rows} == {15}
        assert not unsafe(["".join(row) for row in rows])
        await pilot.press("w", "w")
        saved = json.loads((tmp_path / "reading-1.json").read_text(encoding="utf-8"))
        assert (tmp_path / "reading-2.json").exists()
        assert lab.reading is not None and saved["prompt_ids"] == list(lab.reading.prompt_ids)
        assert saved["distribution"]["candidates"][0]["logit"] == lab.reading.distribution.candidates[0].logit  # type: ignore[union-attr]


async def test_themes_and_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        assert any("The│·cat│·sat" in line for line in drawn(app))  # token boundaries without colours
        dark = app.current_theme.dark
        await pilot.press("escape", "d")
        assert app.current_theme.dark is not dark


async def test_a_key_pressed_right_after_a_pane_s_number_belongs_to_that_pane(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both come in one read of the terminal: a fast typist, or a slow machine."""
    monkeypatch.setattr(key_order, "LOST_AFTER", HANG)  # no key is handled before the one in front of it
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape")
        for key in ("1", "3", "m"):  # Tokens, Loss; m opens the models from every pane
            app.post_message(events.Key(key, key))
        await until(pilot, lambda: isinstance(app.screen, ModelsScreen))
        assert app.lab_screen.panes.current == "loss"
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)
        for key in ("4", "n"):  # n is the Training pane's own key
            app.post_message(events.Key(key, key))
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
