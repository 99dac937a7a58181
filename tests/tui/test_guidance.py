"""Guidance for newcomers: which keys there are, and which model the numbers are from."""

from __future__ import annotations

import dataclasses

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, until
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from tests import HANG
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Request
from tui_llm.tui.app import LabApp
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.command import PANES
from tui_llm.tui.kit.text import packed
from tui_llm.tui.kit.widgets.prompt import PromptEditor
from tui_llm.tui.lab.panes.generate import GeneratePane

# At 80 × 24, each pane's purpose is shown in the footer or in the pane's lower border.
KEYS = {
    "tokens": ("k colour", "M merges", "S swap", "C compare", "L letters", "E examples", "A inside", "← → cursor"),
    "logits": ("Enter as target", "[ ] temperature", "{ } top-p", "C stages", "F find", "e what if", "K sampler"),
    "loss": ("t target", "p gradient", "L learn this", "n own next", "P pin"),
    "training": ("n new run", "p pause", "S stop", "R runs", "h how it learned"),
    "generate": ("Space stream", "g one token", "D the draw", "H draw many", "T tree", "u undo", "← → step"),
}


async def test_every_panes_keys_are_shown_on_a_small_screen() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape")
        for number, name in enumerate(PANES, 1):
            await pilot.press(str(number))
            await until(pilot, lambda keys=KEYS[name]: all(key in "".join(drawn(app)[-2:]) for key in keys))
            last = "".join(drawn(app)[-2:])
            assert "…" not in last  # none is truncated
            others = [app.lab_screen.panes[other] for other in PANES if other != name]
            assert not any(str(pane.border_subtitle) for pane in others if pane.border_subtitle is not None)


async def test_a_zoomed_pane_names_what_its_border_has_room_for() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "2")
        await until(pilot, lambda: "e what if  K sampler" in "\n".join(drawn(app)))
        assert "X scratch table" not in "\n".join(drawn(app))
        await pilot.press("z")
        await until(pilot, lambda: "X scratch table" in "\n".join(drawn(app)))
        await pilot.press("i")
        await until(pilot, lambda: "K sampler" not in "\n".join(drawn(app)))


def asked(app: LabApp) -> bool:
    return isinstance(app.screen, AskScreen) and isinstance(app.screen.focused, PromptEditor)


async def test_typing_replaces_the_text_of_an_input_window() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "3")
        for typed, kept in (("mat", " mat"), ("dog", " dog")):  # the leading space is kept, since it matters
            await pilot.press("t")
            await until(pilot, lambda: asked(app))
            await pilot.press(*typed, "enter")
            await until(pilot, lambda: app.screen is lab)
            assert lab.lab.target is not None and lab.lab.target.text == kept
        await pilot.press("t")
        await until(pilot, lambda: asked(app))
        await pilot.press("end", "s", "enter")  # or continues with it
        await until(pilot, lambda: app.screen is lab)
        assert lab.lab.target is not None and lab.lab.target.text == " dogs"
        app.push_screen(AskScreen("Again", "", "  \n"))
        await until(pilot, lambda: asked(app))
        assert app.screen.query_one(PromptEditor).selection.is_empty


class Missing(FakeEngine):
    def read(self, request: Request, *args: object) -> Reading:
        reading = super().read(request)
        if request.tokenizer is None:
            return reading
        tokens = dataclasses.replace(
            reading.tokens, tokenizer="gpt2", tokens=(), pieces=(), count=0, vocabulary=0, problem="gpt2 is not here"
        )
        return dataclasses.replace(reading, tokens=tokens)


async def test_a_missing_vocabulary_gives_no_number() -> None:
    app = make_app(Missing())
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "1", "v")
        await answered(pilot, app.lab_screen)
        await until(pilot, lambda: "no tokens of gpt2" in "\n".join(drawn(app)))
        assert "0 tokens" not in "\n".join(drawn(app)) and "gpt2 is not here" in "\n".join(drawn(app))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_title_names_the_colours(size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "1")
        for words in ("surprisal, nats", "rank", "probability", "entropy, nats"):
            await pilot.press("k")
            await until(pilot, lambda words=words: f"1 Tokens · {words} " in "\n".join(drawn(app)))
        await pilot.press("k")
        await until(pilot, lambda: "1 Tokens ━" in "\n".join(drawn(app)))


async def test_the_loss_pane_shows_both_references_beside_the_other_panes() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await until(pilot, lambda: "at 100 %" in "\n".join(drawn(app)))
        screen = "\n".join(drawn(app))
        assert "this loss" in screen and "guess (ln V)" in screen and "(perplexity)" in screen


@pytest.mark.parametrize(
    ("width", "there", "gone"),
    [(80, "context", "forward pass"), (120, "forward pass", "vocabulary"), (200, "vocab", "…")],
)
async def test_the_top_line_drops_whole_facts(width: int, there: str, gone: str) -> None:
    app = make_app()
    async with app.run_test(size=(width, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await until(pilot, lambda: there in drawn(app)[0])
        assert gone not in drawn(app)[0] and "…" not in drawn(app)[0]
        await pilot.resize_terminal(60, 24)
        await until(pilot, lambda: len(drawn(app)[0]) == 60)
        assert drawn(app)[0].startswith(" nano  2.6 M parameters")


async def test_cut_tokens_and_drawn_ones_of_low_rank_are_marked() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "5", "g")
        await until(pilot, lambda: lab.lab.steps)
        await pilot.pause()
        step: GeneratedToken = lab.lab.steps[0]
        assert "drawn p" in "\n".join(drawn(app))
        far = dataclasses.replace(step, id=999, text=" far", probability=0.0117)
        out = dataclasses.replace(step, index=1, id=998, text=" out", probability=0.0, u=None, by_hand=True)
        lab.lab.steps = (far, out)
        pane = lab.query_one(GeneratePane)
        pane.cursor = 0
        pane.rebuild()
        await until(pilot, lambda: "▸·far 1.17 % …" in "\n".join(drawn(app)))
        row = next(line for line in drawn(app) if "·out" in line)
        assert "by hand" in row and " cut " in row and "0 %" not in row


@given(st.floats(0.001, 9e5))
def test_figures_have_three_digits(value: float) -> None:
    text = fmt.figures(value)
    assert len(text) <= 8 and not text.endswith(".")
    if value < 99.9:
        assert len(text.replace(".", "").lstrip("0")) == 3
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.006)


def test_figures_line_up() -> None:
    assert [fmt.figures(value) for value in (1, 0.098, 99.96, 2.9999, 0, 1234.4)] == [
        "1.00", "0.0980", "100", "3.00", "0", "1,234",
    ]  # fmt: skip


@given(st.lists(st.text(st.characters(codec="ascii", categories=("L",)), min_size=1, max_size=12)), st.integers(12, 60))
def test_a_token_and_its_number_stay_together(words: list[str], width: int) -> None:
    parts = [f"{word} %" if len(word) < 11 else word for word in words]
    lines = [line.plain for line in packed(map(Text, parts), width)]
    assert all(len(line) <= width for line in lines)
    assert [part for line in lines for part in line.split("  ")] == parts


@pytest.mark.parametrize("keys", ["1", "1 A", "5 T", "5 H", "2 T", "R", "4 n"])
async def test_notifications_cover_no_numbers(keys: str) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", *keys.split())
        await pilot.pause()
        if keys == "4 n":  # the cost of a run is computed in a thread, and its text is looked at in another
            await until(pilot, lambda: all(words in "".join(drawn(app)) for words in ("FLOPs", "several: separate")))
        below = drawn(app)[2:]
        app.notify("nothing more within the bounds: + goes deeper, < adds less likely paths")
        await until(pilot, lambda: "+ goes deeper, < adds less likely" in "".join(drawn(app)[:2]))
        assert drawn(app)[2:] == below, "the longest message takes two lines"
        for count in range(2, 6):
            app.notify(f"copied {count} rows, tab-separated")
            await until(pilot, lambda count=count: f"copied {count} rows" in drawn(app)[0])  # type: ignore[misc]
            assert not any("▌" in line for line in drawn(app)[1:]) and drawn(app)[2:] == below
        app.notify("it can't be [read]", severity="error", timeout=HANG, markup=False)
        app.notify("copied 6 rows, tab-separated")
        await until(pilot, lambda: "can't be [read]" in drawn(app)[0] and "copied 6 rows" in drawn(app)[1])


async def test_the_samplers_form_says_how_to_switch() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "2", "K")
        await until(pilot, lambda: "Space: on or off" in "\n".join(drawn(app)))


@pytest.mark.parametrize("asked", [None, 3.0])
@pytest.mark.parametrize("severity", ["information", "error"])
async def test_a_notification_stays_as_long_as_it_takes_to_read(asked: float | None, severity: str) -> None:
    """At 200 words a minute, six characters a word; a short one as long as its caller says."""
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        for words in (3, 40):
            message = " ".join(["model"] * words)
            app.clear_notifications()
            app.screen.notify(message, severity=severity, timeout=asked)  # type: ignore[arg-type]
            await until(pilot, lambda message=message: any(one.message == message for one in app._notifications))  # type: ignore[misc]
            (note,) = (one for one in app._notifications if one.message == message)
            usual = app.NOTIFICATION_TIMEOUT if asked is None else asked
            assert note.timeout == usual if words == 3 else note.timeout >= words / 200 * 60
