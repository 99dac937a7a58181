"""The form for a new run: every setting can be changed, each invalid one says why, and the cost is shown."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_run
import pytest
from helpers import answered, drawn, make_app, unsafe, until
from hypothesis import given
from hypothesis import strategies as st
from test_runs_screen import UNSET, ScreenApp, says, set_field
from textual import events
from textual.widgets import Input, Select

from tests import HANG
from tui_llm.common.errors import UserError
from tui_llm.training.plan import cost as costs
from tui_llm.training.plan import extras, launch, processes
from tui_llm.training.plan.corpus_check import complete_last, describe_corpora, quoted, several
from tui_llm.training.plan.fields import NAMES, field_problems, text_of
from tui_llm.training.plan.run_time import RunTime
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import PRESETS, TrainingSettings, from_fields
from tui_llm.tui.runs import estimate as estimating
from tui_llm.tui.runs.new_run import NewRunScreen
from tui_llm.tui.runs.new_run_fields import BESIDE, CHOICES, GROUPS, CorpusField, names_for
from tui_llm.tui.runs.pane import TrainingPane

WRONG = {
    "layers": ("0", "1 or more"), "heads": ("0", "1 or more"), "width": ("0", "1 or more"), "block_size": ("1", "2 or more"),
    "dropout": ("1", "below 1"), "tokenizer": ("no-such", "no model 'no-such'"), "batch_size": ("-1", "1 or more"),
    "grad_accumulation_steps": ("0", "1 or more"), "steps": ("1.5", "whole number"), "learning_rate": ("inf", "from 0 up"),
    "min_learning_rate": ("x", "a number"), "warmup_steps": ("-1", "0 or more"), "weight_decay": ("nan", "from 0 up"),
    "beta1": ("1", "below 1"), "beta2": ("-0.1", "below 1"), "clip": ("-1", "from 0 up"), "seed": ("-1", "whole number from 0"),
    "eval_every": ("0", "1 or more"), "eval_batches": ("0", "1 or more"), "checkpoint_every": ("0", "1 or more"),
    "validation_fraction": ("1", "such as 0.05"), "sample_tokens": ("-1", "0 or more"), "decay_fraction": ("2", "from 0 to 1"),
    "arch": ("softcap", "softcap is saved as NanoChat, which also needs rmsnorm, rope, qk-norm: add them"),
    "minutes": ("-1", "from 0 up"), "from_model": ("[/]", "no model folder [/]"),
    "momentum_warmup_steps": ("5", "are muon's"), "ema_decay": ("1", "below 1"), "threads": ("5000", "0 to 4,096"),
}  # fmt: skip


ON_DISK = ("tokenizer", "from_model")


def value(app: ScreenApp, name: str) -> str:
    return str(app.shown.query_one(f"#{name}").value)  # type: ignore[attr-defined]


def cost(app: ScreenApp) -> str:
    return str(app.shown.query_one("#cost").render())  # type: ignore[attr-defined]


def estimate(app: ScreenApp) -> str:
    return str(app.shown.query_one("#estimate").render())  # type: ignore[attr-defined]


def test_every_setting_is_in_the_form_once() -> None:
    placed = [name for names in GROUPS.values() for name in names]
    assert sorted(placed) == sorted({*NAMES, *BESIDE, "preset", "name", "device"})
    assert set(names_for("pretraining")) - set(WRONG) - set(CHOICES) == {"sample_prompt", "field"}


async def test_each_wrong_setting_says_why_beside_it_and_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "create", lambda *_, **__: pytest.fail("it must not start"))
    app = ScreenApp(NewRunScreen("stories"))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "grammar" in says(app, "corpus"))
        for name in ON_DISK:  # fields that are checked against the disk, one by one
            right, (wrong, why) = value(app, name), WRONG[name]
            set_field(app, name, wrong)
            await until(pilot, lambda name=name, why=why: why in says(app, name))
            await pilot.press("ctrl+s")
            await pilot.pause()
            assert app.answer is UNSET and says(app, name).startswith("✗")
            set_field(app, name, right)
        set_field(app, "heads", "3")
        await until(pilot, lambda: "width 64 is not a multiple of 3 heads" in says(app, "width"))
        for name in set(WRONG) - set(ON_DISK):
            set_field(app, name, WRONG[name][0])
        for name in set(WRONG) - set(ON_DISK):
            await until(pilot, lambda name=name: WRONG[name][1] in says(app, name))
            assert says(app, name).startswith("✗"), name
        assert not unsafe(drawn(app))  # type: ignore[arg-type]
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert app.answer is UNSET and "minutes: minutes is" in app.text  # the first error is shown
        trouble = app.screen.query_one("#trouble")
        assert trouble.has_class("-some")
        set_field(app, "seed", "1")
        await until(pilot, lambda: not trouble.has_class("-some"))  # it was about the fields as they were


@pytest.mark.parametrize("how", ["left", "submitted"])
async def test_an_empty_form_shows_no_error_before_one_is_made(how: str) -> None:
    app = ScreenApp(NewRunScreen())
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "several" in says(app, "corpus"))  # it has been checked
        assert "✗" not in app.text
        await pilot.press("tab" if how == "left" else "ctrl+s")
        await until(pilot, lambda: says(app, "corpus").startswith("✗"))


async def test_no_label_touches_its_field() -> None:
    app = ScreenApp(NewRunScreen("stories"))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "grammar" in says(app, "corpus"))
        labels = [*app.screen.query(".label")]
        assert len(labels) > 20
        for label in labels:
            widest = label.styles.width.value - label.styles.padding.right  # type: ignore[union-attr]
            assert label.styles.padding.right and all(len(word) <= widest for word in str(label.render()).split())


@pytest.mark.parametrize("name", sorted(set(WRONG) - set(ON_DISK)))
def test_one_invalid_setting_marks_no_other(name: str) -> None:
    assert WRONG[name][1] in field_problems({name: WRONG[name][0]}, PRESETS["toy"])[name]


async def test_unchanged_fields_follow_the_preset_and_changed_ones_stay() -> None:
    app = ScreenApp(NewRunScreen())
    async with app.run_test(size=(80, 24)) as pilot:
        set_field(app, "batch_size", "5")
        app.shown.query_one("#schedule", Select).value = "wsd"
        await pilot.pause()
        app.shown.query_one("#preset", Select).value = "gpt2"
        await until(pilot, lambda: value(app, "width") == "768")
        assert (value(app, "batch_size"), value(app, "schedule"), value(app, "grad_accumulation_steps")) == (
            "5",
            "wsd",
            "60",
        )
        for name in set(NAMES) - {"batch_size", "schedule"}:
            assert value(app, name) == text_of(PRESETS["gpt2"], name), name
        await until(pilot, lambda: "124 M parameters" in cost(app) and "FLOPs" in cost(app))
        set_field(app, "steps", "100")  # the warm-up is shortened
        await until(pilot, lambda: value(app, "warmup_steps") == "10")


async def test_a_model_to_start_from_brings_its_shape_and_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    def create(name: str, corpora: list[str], settings: TrainingSettings, **more: Any) -> Any:
        made.append({"corpora": corpora, "settings": settings, **more})
        return fake_run.make(name)

    monkeypatch.setattr(launch, "create", create)
    monkeypatch.setattr(launch, "start", lambda run: None)
    app = ScreenApp(NewRunScreen("stories, python-reference"))
    async with app.run_test(size=(80, 24)) as pilot:
        set_field(app, "from_model", "nano")
        await until(pilot, lambda: value(app, "width") == "256" and app.shown.query_one("#width").disabled)
        assert says(app, "layers") == "the model's own"
        set_field(app, "from_model", "")
        await until(pilot, lambda: value(app, "width") == "64" and not app.shown.query_one("#width").disabled)
        set_field(app, "from_model", "nano")
        set_field(app, "block_size", "100000")
        await until(pilot, lambda: "positions of the model nano" in says(app, "block_size"))
        set_field(app, "block_size", "32")
        await until(pilot, lambda: "parameters" in cost(app) and "2 texts" in says(app, "corpus"))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.answer is not UNSET)
    (run,) = made
    s = run["settings"]
    assert (s.from_model, s.tokenizer, s.width, s.block_size) == ("nano", "nano", 256, 32)
    assert run["model"].name == "nano" and run["corpora"] == ["stories", "python-reference"]


async def test_format_and_field_are_checked_with_the_corpus_and_char_counts_its_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(
        launch, "create", lambda name, corpora, settings, **_: made.append(settings) or fake_run.make(name)
    )
    monkeypatch.setattr(launch, "start", lambda run: None)
    data = tmp_path / "data.jsonl"
    data.write_text('{"id": 1, "body": "abcab"}\n' * 9)
    app = ScreenApp(NewRunScreen(str(data)))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "it has: id, body; choose one with --field NAME" in says(app, "corpus"))
        set_field(app, "field", "body")
        await until(pilot, lambda: "bytes of text" in says(app, "corpus"))
        app.shown.query_one("#format", Select).value = "csv"
        await until(pilot, lambda: says(app, "corpus").startswith("✗"))
        app.shown.query_one("#format", Select).value = "auto"
        await until(pilot, lambda: "bytes of text" in says(app, "corpus"))
        set_field(app, "tokenizer", "char")
        settings = from_fields({"tokenizer": "char", "field": "body"}, PRESETS[value(app, "preset")])
        line = estimating.cost_line(settings, costs.shape(settings, 4))  # a, b, c and <|endoftext|>
        await until(pilot, lambda: cost(app) == line)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.answer is not UNSET)
    assert [(s.tokenizer, s.format, s.field) for s in made] == [("char", "auto", "body")]


async def test_run_options_beside_the_settings_are_checked_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    def create(name: str, corpora: list[str], settings: TrainingSettings, **more: Any) -> Any:
        made.append({"compile": settings.compile, **more})
        return fake_run.make(name)

    def missing() -> None:
        raise UserError("TensorBoard's event files need an extra: pip install 'tui-llm[tensorboard]'")

    monkeypatch.setattr(launch, "create", create)
    monkeypatch.setattr(launch, "start", lambda run: None)
    monkeypatch.setattr(extras, "check_tensorboard", missing)
    app = ScreenApp(NewRunScreen("stories"))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "grammar" in says(app, "corpus"))
        assert [value(app, name) for name in (*BESIDE, "compile")] == ["1", "off", "off", "auto"]

        async def said(name: str, why: str) -> None:
            await until(pilot, lambda: why in says(app, name))
            await pilot.press("ctrl+s")
            await pilot.pause()
            assert app.answer is UNSET and (says(app, name).startswith("✗") == bool(why))

        def choose(name: str, choice: str) -> None:
            app.shown.query_one(f"#{name}", Select).value = choice

        for text, why in (
            ("x[/]", "not a number of processes"),
            ("0", "1 or more"),
            ("3", "give a batch size such as 18"),
            ("", "whole"),
        ):
            set_field(app, "nproc", text)
            await said("nproc", why)
        set_field(app, "nproc", "1")
        choose("shard", "on")
        await said("shard", "2 or more")
        set_field(app, "nproc", "2")
        monkeypatch.setattr(processes, "_torch_version", lambda: (2, 9))
        choose("optimizer", "muon")
        await said("shard", "muon can't step on shards in torch 2.9")
        choose("optimizer", "adamw")
        choose("tensorboard", "on")
        await said("tensorboard", "pip install")
        monkeypatch.setattr(extras, "check_tensorboard", lambda: None)
        choose("compile", "off")
        await until(pilot, lambda: not says(app, "tensorboard").startswith("✗"))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.answer is not UNSET)
    (run,) = made
    assert [run[name] for name in (*BESIDE, "compile")] == [2, True, True, "off"]


class Slow:
    """A measurement that ends on request."""

    made: list[Slow] = []

    def __init__(self, *_: Any) -> None:
        import threading

        self.cancelled, self.go = False, threading.Event()
        Slow.made.append(self)

    def take(self, say: Callable[[str], object]) -> RunTime:
        self.go.wait()
        if self.cancelled:
            raise UserError("not measured: it was stopped")
        return RunTime(4.0, 0.2, 1.0, 0.8, 400, 9, 9, 40, 16, 1024, 0.0, 1.5, "cpu", True)

    def cancel(self) -> None:
        self.cancelled = True
        self.go.set()


async def test_measured_steps_estimate_the_time_and_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "RunTimeMeasurement", Slow)
    Slow.made = []
    app = ScreenApp(NewRunScreen("python-reference"))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "120,640" in cost(app) or "121 K" in cost(app))
        await until(pilot, lambda: "corpus" not in app.shown._field_problems)  # type: ignore[attr-defined]
        await pilot.press("ctrl+e")
        await until(pilot, lambda: app.shown.estimate.measurement is not None)  # type: ignore[union-attr]
        assert "beginning the run" in estimate(app)
        Slow.made[-1].go.set()
        await until(pilot, lambda: "1 min 40 s for all 400 steps; 8 of 10 runs take" in estimate(app))
        assert "steps 80 %" in estimate(app) and "other processes took 33 % of the time" in estimate(app)
        await until(pilot, lambda: "Cancel (Esc)" in app.text)  # the fields leave room for the buttons
        set_field(app, "steps", "800")  # the measured time is no longer valid
        await until(pilot, lambda: "ctrl+e begins" in estimate(app))
        for stop in ("ctrl+e", "escape"):
            await pilot.press("ctrl+e")
            await until(pilot, lambda: app.shown.estimate.measurement is not None)  # type: ignore[union-attr]
            await pilot.press(stop)
            await until(pilot, lambda: Slow.made[-1].cancelled)
        assert app.answer is None


async def test_an_estimate_is_stopped_before_its_process_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    begins, asked = threading.Event(), list[object]()

    def waiting(fields: object, owner: object) -> None:
        asked.append(fields)
        assert begins.wait(HANG)

    monkeypatch.setattr(estimating, "plan_run", waiting)
    monkeypatch.setattr(estimating, "RunTimeMeasurement", Slow)
    Slow.made = []
    app = ScreenApp(NewRunScreen("python-reference"))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "corpus" not in app.shown._field_problems)  # type: ignore[attr-defined]
        await pilot.press("ctrl+e")
        await until(pilot, lambda: len(asked) == 1)
        await pilot.press("ctrl+e")  # stops it, instead of beginning another one
        await until(pilot, lambda: "ctrl+e begins" in estimate(app))
        begins.set()
        await until(pilot, lambda: len(Slow.made) == 1 and Slow.made[0].cancelled)
        assert len(asked) == 1 and "ctrl+e begins" in estimate(app)


async def test_a_pasted_list_becomes_several_corpora() -> None:
    app = ScreenApp(NewRunScreen())
    async with app.run_test(size=(80, 24)) as pilot:
        app.shown.query_one(CorpusField).focus()
        app.shown.query_one(CorpusField).post_message(events.Paste("stories\n/x/a, b.txt\n\n\x1b[31m\n"))
        await until(pilot, lambda: value(app, "corpus") == 'stories, "/x/a, b.txt", [31m')
        await until(pilot, lambda: says(app, "corpus").startswith("✗ /x/a, b.txt: there is no such"))
        assert isinstance(app.shown.query_one("#corpus"), Input)


# ── without a screen ─────────────────────────────────────────────────────────────────────────────────────────────


def test_several_corpora_are_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a, b.txt").write_text("12345")
    (tmp_path / "c.txt").write_text("1")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "e.txt").write_text("2")
    assert several("a, b.txt") == ["a, b.txt"] and several('"a, b.txt", c.txt ,') == ["a, b.txt", "c.txt"]
    assert describe_corpora('"a, b.txt", c.txt, docs, stories') == "4 texts: 6 bytes of text, the folder docs, stories"
    with pytest.raises(UserError, match="not closed"):
        several('"a, b')
    with pytest.raises(UserError, match="none: there is no such"):
        describe_corpora("c.txt, none")
    assert complete_last("c.txt, st") == "c.txt, stories" and complete_last("c.txt, do") == "c.txt, docs/"
    assert complete_last("a") is None  # the completion would be two corpora


@given(st.lists(st.text(st.characters(exclude_categories=("C", "Z")), min_size=2).map(lambda t: t + "!?"), min_size=2))
def test_quoted_names_survive_a_round_trip(names: list[str]) -> None:
    assert several(", ".join(map(quoted, names))) == names


@given(st.sampled_from(sorted(set(NAMES) - set(CHOICES))), st.text() | st.integers().map(str) | st.floats().map(str))
def test_a_text_is_judged_as_the_worker_would(name: str, text: str) -> None:
    wrong = field_problems({name: text}, PRESETS["toy"])
    try:
        settings = from_fields({name: text}, PRESETS["toy"])
    except UserError:
        # heads and width are validated together, and the form shows both
        assert wrong or name == "heads"
    else:
        assert not wrong and (not isinstance(getattr(settings, name), float) or math.isfinite(getattr(settings, name)))


@pytest.mark.parametrize("problem", ["", "can't write there"])
async def test_a_form_closed_while_it_starts_a_run_still_tells_the_training_pane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    starting, go_on = threading.Event(), threading.Event()

    def start(run: Run) -> None:
        starting.set()
        go_on.wait()
        if problem:
            raise UserError(problem)

    monkeypatch.setattr(launch, "start", start)
    (tmp_path / "tales.txt").write_text("Once upon a time " * 200)
    monkeypatch.chdir(tmp_path)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "4", "n")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen) and app.screen.is_mounted)
        form = app.screen
        form.query_one("#corpus", Input).value = "tales.txt"
        await until(pilot, lambda: "corpus" not in form._field_problems)  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        await until(pilot, starting.is_set)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is lab)
        go_on.set()
        if problem:
            await until(pilot, lambda: any(told.message == problem for told in app._notifications))
        else:
            watcher = lab.query_one(TrainingPane).watcher
            await until(pilot, lambda: watcher.run_watched is not None and watcher.run_watched.name == "tales-toy")
