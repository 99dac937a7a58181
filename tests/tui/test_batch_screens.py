"""A run's batch and samples on full screens, control from the Training pane, and a footer that fits any width."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import fake_run
import pytest
from helpers import answered, drawn, make_app, unsafe, until
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App
from textual.content import Content

from tui_llm.cli import main
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.command import PANES
from tui_llm.tui.kit.loss_shade import LEVELS, legend, shade
from tui_llm.tui.kit.widgets.bars import KeyBar, fitting
from tui_llm.tui.kit.widgets.prompt import PromptEditor
from tui_llm.tui.lab.keys import footer
from tui_llm.tui.runs.batch import BatchLines, BatchScreen, loss_text
from tui_llm.tui.runs.pane import TrainingPane
from tui_llm.tui.runs.samples import SampleLines, SamplesScreen

HOSTILE = ["[/]", "[red]", "\x1b[31m", "\x9b1m", "\u202e", "猫", "e\u0301", "\u0301", "\u200b", "\t", "\n", "", "[link='x",
           "👩‍👩‍👧", "a" * 300]  # fmt: skip


class ScreenApp(App[None]):
    def __init__(self, screen: BatchScreen | SamplesScreen) -> None:
        super().__init__()
        self.opened = screen

    def on_mount(self) -> None:
        self.push_screen(self.opened)

    @property
    def text(self) -> str:
        return "\n".join(drawn(self)).replace("\N{NO-BREAK SPACE}", " ")  # type: ignore[arg-type]


def put_batch(run: Any, rows: list[list[str | bytes]], losses: list[list[float | None]], **more: Any) -> None:
    """Writes a batch.json with rows of n + 1 tokens and n losses each."""
    ids: dict[bytes, int] = {}
    shown = []
    for number, (row, each) in enumerate(zip(rows, losses, strict=True)):
        data = [token if isinstance(token, bytes) else token.encode() for token in row]
        shown.append({"row": number, "ids": [ids.setdefault(token, len(ids)) for token in data], "losses": each})
    value = {"version": 1, "step": 101, "updates": 100, "loss": 2.5, "rows": 16, "tokens": 64, "special": [],
             "bytes": {id: token.hex() for token, id in ids.items()}, "shown": shown, **more}  # fmt: skip
    (run.path / "batch.json").write_text(json.dumps(value))


# ── the batch ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_column_is_one_position_with_its_loss() -> None:
    run = fake_run.make("tales", done=10)
    put_batch(run, [["the", " cat", " sat", "!"]], [[0.05, 3.25, 7.5]])
    app = ScreenApp(BatchScreen(run))
    async with app.run_test(size=(100, 20)) as pilot:
        await until(pilot, lambda: "the batch of step 101" in app.text)
        lines = app.text.split("\n")
        for words in ("seen by the model before that update: after 100, without dropout", "mean loss 3.600 of what is shown",
                      "2.500 of the whole batch (16 × 64 tokens)", "left out: 15 more rows and 61 more tokens"):  # fmt: skip
            assert words in " ".join(line.strip("│ ") for line in lines), words
        (x,) = (line for line in lines if "x the" in line)
        y, loss = lines[lines.index(x) + 1], lines[lines.index(x) + 2]
        for above, below, number in (("the", "·cat", "0.05"), ("·cat", "·sat", "3.25"), ("·sat", "!", "7.50")):
            at = y.index(below)
            assert x[at:].startswith(above) and loss[at:].startswith(number)
        assert "position 1: the 0 → ·cat 1  loss 0.050 nats, p = 95.1 %" in app.text
        await pilot.press("right", "right", "right")
        await until(pilot, lambda: "position 3: ·sat 2 → ! 3  loss 7.500" in app.text)
        await pilot.press("home")
        await until(pilot, lambda: "position 1: the" in app.text)
        await pilot.press("y")
        await until(pilot, lambda: app.clipboard)
        copied = [line.split("\t") for line in app.clipboard.splitlines()]
        assert copied[0][-1] == "loss" and len(copied) == 4
        assert copied[2] == ["0", "1", "1", b" cat".hex(), " cat", "2", b" sat".hex(), " sat", "3.25"]
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is not app.opened)


async def test_narrow_columns_carry_a_mark_instead_of_a_number_and_rows_wrap() -> None:
    run = fake_run.make("tales", done=10)
    put_batch(run, [[chr(97 + i % 26) for i in range(65)]] * 8, [[0.01, 0.4, 2.0, 4.0, 6.0, 9.0, *[1.0] * 58]] * 8)
    app = ScreenApp(BatchScreen(run))
    async with app.run_test(size=(60, 24)) as pilot:
        await until(pilot, lambda: "· ▁ ▃ ▅ ▇ █" in app.text)
        lines = app.screen.query_one(BatchLines)
        await pilot.press("end")
        await until(pilot, lambda: "row 8, position 64" in app.text)
        assert lines.scroll_offset.y > 0 and "row 8  mean loss" in app.text
        await pilot.press("pageup", "pageup")
        await until(pilot, lambda: "row 6, position 1:" in app.text)
        before = lines.at
        await pilot.press("down", "up")
        await until(pilot, lambda: lines.at == before)


async def test_the_batch_screen_follows_the_file_and_requests_a_new_one() -> None:
    run = fake_run.make("tales", done=10, state="running")
    app = ScreenApp(BatchScreen(run))
    async with app.run_test(size=(100, 24)) as pilot:
        await until(pilot, lambda: "no batch yet" in app.text)
        await pilot.press("r")
        await until(pilot, lambda: app._notifications)
        assert "batch" not in run.control()  # no worker
        put_batch(run, [["a", "b"]], [[1.0]])
        await until(pilot, lambda: "the batch of step 101" in app.text)
        with fake_run.alive(run):
            await pilot.press("r")
            await until(pilot, lambda: isinstance(run.control().get("batch"), int))
            put_batch(run, [["a", "c"]], [[2.0]], step=102, updates=101)
            await until(pilot, lambda: "the batch of step 102" in app.text)
        (run.path / "batch.json").write_text("{")
        await until(pilot, lambda: "is not valid JSON" in app.text)
        assert "step 102" in app.text  # the previous batch is still shown


@pytest.mark.parametrize("size", [(1, 1), (80, 24)])
async def test_hostile_tokens_are_safe_and_measured_at_any_size(size: tuple[int, int]) -> None:
    run = fake_run.make("tales", done=10)
    tokens: list[str | bytes] = [*HOSTILE, b"\xe2", b"\xff"]
    put_batch(run, [tokens, tokens], [[None, math.pi, 1e300, *[0.3] * (len(tokens) - 4)]] * 2)
    fake_run.sample(run, 10, "".join(HOSTILE), prompt="[/]\x1b")
    for screen in (BatchScreen(run), SamplesScreen(run)):
        app = ScreenApp(screen)
        async with app.run_test(size=size) as pilot:
            shown = screen._list
            await until(pilot, lambda shown=shown: shown.loaded)
            for key in ("right", "down", "end", "pageup", "home", "left", "up", "y"):
                await pilot.press(key)
                await pilot.pause()
                assert not unsafe(drawn(app)) and {cell_len(line) for line in drawn(app)} == {size[0]}  # type: ignore[arg-type]


@given(st.floats(min_value=0), st.integers(1, 16))
def test_a_loss_fills_its_cells_in_the_legends_style(loss: float, cells: int) -> None:
    assert cell_len(loss_text(loss, cells)) == cells
    assert shade(loss) in legend()


def test_the_loss_scale_increases_and_matches_its_legend() -> None:
    assert [found.level for found in legend()] == list(range(LEVELS))
    for p, words in ((0.95, "p > 90 %"), (0.6, "> 50 %"), (0.2, "> 10 %"), (0.02, "> 1 %"), (0.002, "> 0.1 %"),
                     (1e-4, "less")):  # fmt: skip
        assert shade(-math.log(p)).words == words
    assert shade(math.nan).mark == "?" and shade(math.inf).words == "less"


# ── the samples ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_all_samples_are_there_the_newest_last_and_more_come() -> None:
    run = fake_run.make("tales", done=40)
    for step in range(10, 410, 10):
        fake_run.sample(run, step, f" sample of {step}\nsecond line")
    app = ScreenApp(SamplesScreen(run))
    async with app.run_test(size=(60, 20)) as pilot:
        await until(pilot, lambda: "Once sample of 400" in app.text)
        fake_run.sample(run, 410, " the newest")
        await until(pilot, lambda: "Once the newest" in app.text and "step 410" in app.text)
        await pilot.press("home")
        await until(pilot, lambda: "Once sample of 10" in app.text)
        fake_run.sample(run, 420, " unseen")
        shown = app.screen.query_one(SampleLines)
        await until(pilot, lambda: len(shown.samples) == 42)
        assert shown.scroll_offset.y == 0  # the position in an old sample is kept
        await pilot.press("y")
        await until(pilot, lambda: app.clipboard)
        assert app.clipboard.splitlines()[1] == "10\tOnce\t sample of 10␊second line"
        run.samples_path.write_bytes(b"")  # truncated by a resumed run
        await until(pilot, lambda: "no samples yet" in app.text)


# ── from the Training pane ────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_panes_keys_open_screens_save_and_change_the_rate() -> None:
    run = fake_run.make("tales", done=10, state="running")
    peak = run.config().settings.learning_rate
    put_batch(run, [["a", "b"]], [[1.0]])
    app = make_app()
    with fake_run.alive(run):
        async with app.run_test(size=(120, 40)) as pilot:
            await answered(pilot, app.lab_screen)
            await pilot.press("escape", "4")
            pane = app.lab_screen.query_one(TrainingPane)
            await until(pilot, lambda: pane.snapshot)
            for key, screen in (("B", BatchScreen), ("T", SamplesScreen)):
                await pilot.press(key)
                await until(pilot, lambda screen=screen: isinstance(app.screen, screen))
                footer_line = drawn(app)[-1]
                assert "? help" in footer_line and "Esc back" in footer_line
                await pilot.click(KeyBar, offset=(footer_line.index("back"), 0))
                await until(pilot, lambda: app.screen is app.lab_screen)
            await pilot.press("V")
            await until(pilot, lambda: run.control().get("save"))
            await pilot.press("L")
            await until(pilot, lambda: isinstance(app.screen, AskScreen))
            await until(pilot, lambda: f"now {peak:g}" in "\n".join(drawn(app)))
            editor = app.screen.query_one(PromptEditor)
            assert editor.prompt_text == f"{peak:g}"
            await pilot.press("ctrl+a", "x", "enter")
            await until(pilot, lambda: "is not a number" in "\n".join(drawn(app)))
            assert "learning_rate" not in run.control()
            app.screen.query_one(PromptEditor).text = "2e-4"
            await pilot.press("enter")
            await until(pilot, lambda: run.control().get("learning_rate"))
            assert run.control()["learning_rate"]["peak"] == 2e-4
            await pilot.press("L")
            await until(pilot, lambda: "now 0.0002" in "\n".join(drawn(app)))
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.lab_screen)


async def test_without_a_run_the_keys_say_so() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "4")
        for key in "BTVL":
            app.clear_notifications()
            await pilot.press(key)
            await until(pilot, lambda: app._notifications)
            assert app.screen is app.lab_screen


# ── the footer ───────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.text("abc猫", min_size=1, max_size=9), st.integers(0, 3))), st.integers(1, 60))
def test_the_footer_keeps_the_most_important_that_fit(entries: list[tuple[str, int]], width: int) -> None:
    kept = [found.plain for found in fitting([(Content(text), rank) for text, rank in entries], width)]
    assert cell_len("  ".join(kept)) <= width
    ranked = sorted(range(len(entries)), key=lambda at: (-entries[at][1], at))
    assert sorted(ranked[: len(kept)]) == [at for at in sorted(ranked[: len(kept)]) if entries[at][0] in kept]
    assert kept == [entries[at][0] for at in sorted(ranked[: len(kept)])]
    if len(kept) < len(entries):  # and one more would not fit
        more = [entries[at][0] for at in ranked[: len(kept) + 1]]
        assert cell_len("  ".join(more)) > width


@pytest.mark.parametrize("width", [20, 80, 120])
async def test_no_word_of_the_footer_is_cut_and_help_is_always_there(width: int) -> None:
    app = make_app()
    async with app.run_test(size=(width, 30)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape")
        for number, place in enumerate(PANES, 1):
            await pilot.press(str(number))
            await pilot.pause()
            line = drawn(app)[-1].strip()
            words = {f"{c.key_text} {c.label}" for c in footer(place) if not c.together} | {
                c.key_text for c in footer(place)
            } | {c.together for c in footer(place)}  # fmt: skip
            assert line.removeprefix("F2 tour  ").startswith("? help") and "…" not in line
            line = line.removeprefix("F2 tour  ")  # in sight until the tour has been opened
            assert all(part in words or any(part.endswith(f" {w}") for w in words) for part in line.split("  ")), line
            assert place != "training" or width < 80 or ("p pause" in line and "B batch" in line)


async def test_the_footer_fits_again_after_a_resize() -> None:
    app = make_app()
    async with app.run_test(size=(200, 30)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "4")
        await until(pilot, lambda: "C curves" in drawn(app)[-1])
        await pilot.resize_terminal(60, 30)
        await until(pilot, lambda: "C curves" not in drawn(app)[-1] and "? help" in drawn(app)[-1])


# ── on the command line ───────────────────────────────────────────────────────────────────────────────────────────────


def test_as_typed(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    run = fake_run.make("tales", done=10)
    assert main(["batch", "tales"]) == 2 and "no batch yet" in capsys.readouterr().err
    assert main(["samples", "tales"]) == 0 and "no samples yet" in capsys.readouterr().out
    put_batch(run, [["[/]", "\x1b", "猫"]], [[1.0, None]])
    fake_run.sample(run, 10, " one\x1b\nmore")
    fake_run.sample(run, 20, " two")
    assert main(["batch", "tales"]) == 0
    out = capsys.readouterr().out
    assert "the batch of step 101" in out and "after 100" in out and "␛" in out and "\x1b" not in out
    assert main(["batch", "tales", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["step"], value["updates"], value["rows"], value["loss"]) == (101, 100, 16, 2.5)
    first, second = value["shown"][0]["positions"]
    assert first["input"]["text"] == "[/]" and first["target"]["bytes"] == "1b" and second["loss"] is None
    assert main(["samples", "tales"]) == 0
    out = capsys.readouterr().out
    assert "step 10\nOnce one␛\nmore\n\nstep 20\nOnce two" in out
    assert main(["samples", "tales", "--last", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == [{"step": 20, "prompt": "Once", "text": " two"}]
    for arguments, why in ((["samples", "tales", "--last", "0"], "from 1 up"), (["samples", "none"], "no run"),
                           (["batch", "none"], "no run"), (["batch", "tales", "--now"], "not being trained")):  # fmt: skip
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert why in err and err.count("\n") == 1
