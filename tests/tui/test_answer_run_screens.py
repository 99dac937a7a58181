"""A run that learns preferences or a reward in the app: its curves, its numbers, its batch; the form that starts one."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import fake_run
import pytest
from helpers import until
from test_batch_screens import ScreenApp as BatchApp
from test_batch_screens import put_batch
from test_new_run_form import value
from test_runs_screen import ScreenApp, says, set_field
from test_training_pane import PaneApp

from tui_llm.cli import main
from tui_llm.training.plan import launch
from tui_llm.training.plan.fields import field_problems
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import PRESETS, SETTINGS, from_fields
from tui_llm.training.run.snapshot import RunReader, RunSnapshot
from tui_llm.tui.runs.answer_lines import curves
from tui_llm.tui.runs.batch import BatchScreen
from tui_llm.tui.runs.loss_chart import LossChart
from tui_llm.tui.runs.new_run import NewRunScreen
from tui_llm.tui.runs.new_run_fields import CHOICES, names_for

HOSTILE = "[red]\x1b[31m\u202e"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path))
    return tmp_path


def preference_run(steps: int = 20, name: str = "liked") -> Run:
    run = fake_run.make(name, steps=steps, state="finished", train_rows=40)
    fields = {"objective": "preference", "from_model": f"/models/{HOSTILE}", "tokenizer": "x", "batch_size": 8}
    config = run.config()
    run.write_config(dataclasses.replace(config, settings=from_fields({"steps": steps, **fields}, PRESETS["toy"])))
    for step in range(1, steps + 1):
        margin = 0.1 * (step - 1)
        held_out = (
            {"val_loss": 0.6, "val_margin": margin, "val_agreement": 0.75, "val_kl": 0.02} if step % 5 == 0 else {}
        )
        fake_run.add(run, step, step, loss=math.log(1 + math.exp(-margin)), margin=margin, agreement=min(1, step / 10),
                     chosen_reward=-0.5 * margin, rejected_reward=-1.5 * margin, **{"val_loss": None, **held_out})  # fmt: skip
    return run


async def test_k_shows_each_curve_of_a_run_that_learns_preferences() -> None:
    preference_run()
    app = PaneApp()
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.state == "finished" and "loss (1 of 5" in app.text)
        snapshot = app.pane.snapshot
        assert snapshot is not None and [one.quantity.name for one in snapshot.series] == ["loss", "margin", "agreement %", "rewards", "KL"]  # fmt: skip
        assert snapshot.perplexity is None and snapshot.uniform_loss is None
        assert snapshot.epoch == pytest.approx(20 * 8 / 40)
        chart = app.query_one(LossChart)
        assert "loss (1 of 5" in app.text and "ln 2 = 0.69" in app.text
        assert "margin 1.900 (held out 1.900)" in app.text and "agreement 100 % (held out 75 %)" in app.text
        assert "learns preferences, β 0.1" in app.text and "\x1b" not in app.text and "\u202e" not in app.text
        seen = []
        for _ in range(5):
            await pilot.press("k")
            await pilot.pause()
            await until(pilot, lambda: not seen or chart.curves.title != seen[-1])
            seen.append(chart.curves.title)
        assert [title.split(" (")[0] for title in seen] == ["margin", "agreement %", "rewards", "KL", "loss"]
        await pilot.press("k", "k", "k", "l")
        await until(pilot, lambda: "no log axis" in app.text)
        assert chart.curves.names == ("chosen", "rejected") and "both can fall" in app.text
        assert chart.curves.train[-1] == (20, pytest.approx(-0.95)) and chart.curves.validation[-1] == (
            20,
            pytest.approx(-2.85),
        )
        head, *rows = app.pane.table()
        assert head[:4] == ("step", "loss", "val_loss", "margin") and "val_kl" in head and len(rows) == 20
        assert rows[4][head.index("val_agreement")] == "0.75"


async def test_the_chart_says_what_the_loss_of_a_variant_is() -> None:
    run = preference_run()
    config = run.config()
    changed = dataclasses.replace(config.settings, sft_weight=1.0, length_normalized="on")
    run.write_config(dataclasses.replace(config, settings=changed))
    app = PaneApp()
    async with app.run_test(size=(160, 40)) as pilot:
        await until(pilot, lambda: app.state == "finished" and "loss (1 of 5" in app.text)
        chart = app.query_one(LossChart)
        assert chart.curves.meaning == "−ln σ(margin) + 1 · (−ln π(chosen) ÷ its tokens); mean of the pairs"
        assert "ln 2" not in app.text  # no line, as the loss of a margin of 0 is another one for each pair
        await pilot.press("k", "k", "k")
        await until(pilot, lambda: chart.curves.title.startswith("rewards"))
        assert chart.curves.meaning.startswith("β (ln π − ln π of the start model) ÷ its tokens")


def with_settings(name: str, **fields: Any) -> RunSnapshot:
    run = preference_run(name=name)
    settings = from_fields({"objective": "preference", "from_model": "nano", **fields}, PRESETS["toy"])
    run.write_config(dataclasses.replace(run.config(), settings=settings))
    return RunReader(run).read()


def test_beside_a_run_that_measures_another_quantity_neither_its_formula_nor_its_levels_are_shown() -> None:
    plain, alike, with_sft, normalized = (
        with_settings(name, **fields)
        for name, fields in (
            ("plain", {}), ("alike", {"beta": 0.3}), ("sft", {"sft_weight": 1.0}), ("normalized", {"length_normalized": "on"}),
        )
    )  # fmt: skip
    each = "as each run measures it"
    for others in ((), (alike,), (alike, normalized)):  # the loss is the same function of the margin in all
        found = curves(plain, others, 0)
        assert found.meaning == "−ln σ(margin); mean of the pairs; ln 2 where the margin is 0"
        assert found.levels == (("ln 2", math.log(2)),) and len(found.others) == len(others)
    for run, others in ((plain, (alike, with_sft)), (with_sft, (plain,))):
        found = curves(run, others, 0)
        assert (found.meaning, found.levels) == (each, ()) and len(found.others) == len(others)
    assert curves(plain, (with_sft,), 3).meaning.startswith("β (ln π − ln π of the start model), mean of the batch")
    found = curves(plain, (normalized,), 3)
    assert found.meaning == each and found.levels == (("start model", 0.0),)  # 0 in both
    warm, cold = (
        with_settings(name, objective="reward", reward="full-stop", temperature=temperature)
        for name, temperature in (("warm", 1.0), ("cold", 0.5))
    )
    found = curves(warm, (cold,), 1)
    assert (found.meaning, found.levels) == (each, (("identical", 0.0),))
    assert curves(warm, (plain,), 1).meaning == curves(warm, (), 1).meaning != each  # of another objective: not shown


async def test_a_batch_of_drawn_answers_says_its_temperature() -> None:
    run = preference_run()
    config = run.config()
    fields = {"objective": "reward", "reward": "full-stop", "temperature": 0.7, "from_model": "nano"}
    run.write_config(dataclasses.replace(config, settings=from_fields(fields, PRESETS["toy"])))
    put_batch(run, [["a", "b", "c"]], [[1.0, 2.0]], objective="reward", tokens=2)
    app = BatchApp(BatchScreen(run))
    async with app.run_test(size=(160, 24)) as pilot:
        await until(pilot, lambda: "loss 1.000 nats, p = 36.8 % at T = 0.7" in app.text)
        words = " ".join(line.strip("│ ") for line in app.text.split("\n"))
        assert "mean of 16 answers: KL weight · KL of the answer (the sum over its tokens) − its reward" in words
        assert "−ln p of each answer token at T = 0.7, 1.500 nats" in words


@pytest.mark.parametrize(("temperature", "said"), [(0.7, " at T = 0.7"), (1.0, "")])
def test_the_command_says_the_temperature_of_each_rows_loss(
    temperature: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = preference_run()
    config = run.config()
    fields = {"objective": "reward", "reward": "full-stop", "temperature": temperature, "from_model": "nano"}
    run.write_config(dataclasses.replace(config, settings=from_fields(fields, PRESETS["toy"])))
    put_batch(run, [["a", "b", "c"]], [[1.0, 2.0]], objective="reward", tokens=2)
    assert main(["batch", run.name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"row 1, mean loss 1.5000{said}" in lines
    assert any(line.split("  ")[-1].strip() == f"loss{said} (nats)" for line in lines)


async def test_a_run_on_text_has_one_curve() -> None:
    fake_run.make("text", done=20)
    app = PaneApp()
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.state == "stopped")
        before = app.query_one(LossChart).curves
        await pilot.press("k")
        await pilot.pause()
        assert app.query_one(LossChart).curves == before and before.title == ""


@pytest.mark.parametrize("size", [(80, 24), (30, 8), (1, 1)])
async def test_a_batch_of_answers_shows_which_answer_each_row_is(size: tuple[int, int]) -> None:
    run = preference_run()
    put_batch(run, [["a", "b", HOSTILE], ["a", "c", "d"]], [[1.0, 2.0], [3.0, None]], objective="preference", tokens=2)
    path = run.path / "batch.json"
    raw: dict[str, Any] = json.loads(path.read_text())
    for row, label, reward in zip(raw["shown"], ("chosen, line 7", "rejected, line 7"), (0.25, -0.5), strict=True):
        row |= {"label": label, "prompt": f"Say {HOSTILE}", "value": reward}
    path.write_text(json.dumps(raw))
    app = BatchApp(BatchScreen(run))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        await until(pilot, lambda: app.opened._list.found is not None)  # type: ignore[union-attr]
        assert "\x1b" not in app.text and "\u202e" not in app.text
        if size[0] == 80:
            await until(pilot, lambda: "chosen, line 7, reward +0.250" in app.text)
            assert (
                "rejected, line 7, reward −0.500" in app.text
                and "mean of 8 pairs" in app.text
                and "after Say" in app.text
            )


async def test_the_form_shows_only_what_applies_and_starts_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"prompt": "a", "chosen": f"b{n}", "rejected": "c"}) + "\n" for n in range(6)))
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(launch, "create", lambda *given, **more: made.append((given, more)) or fake_run.make("made"))
    monkeypatch.setattr(launch, "start", lambda _run: None)
    app = ScreenApp(NewRunScreen(corpus=str(pairs)))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "these are preference pairs: choose the objective" in says(app, "corpus"))
        assert not app.shown.query_one("#beta-row").display
        set_field(app, "objective", "preference")
        await until(pilot, lambda: says(app, "corpus") == "6 different pairs")
        assert app.shown.query_one("#beta-row").display and not app.shown.query_one("#reward-row").display
        assert (value(app, "learning_rate"), value(app, "batch_size"), value(app, "weight_decay")) == (
            "2e-05",
            "8",
            "0",
        )
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "name it: --from nano" in app.text or "start from" in app.text)
        assert not made
        set_field(app, "from_model", "nano")
        await until(pilot, lambda: value(app, "layers") == "4" and not app.shown._examined_problems)  # type: ignore[union-attr]
        await pilot.press("ctrl+s")
        await until(pilot, lambda: made)
        settings = made[0][0][2]
        assert (settings.objective, settings.from_model, settings.beta, settings.steps) == (
            "preference",
            "nano",
            0.1,
            100,
        )


async def test_a_reward_needs_no_file_and_a_wrong_rule_says_why() -> None:
    app = ScreenApp(NewRunScreen())
    async with app.run_test(size=(80, 24)) as pilot:
        set_field(app, "objective", "reward")
        await until(pilot, lambda: "the sample prompt" in says(app, "corpus"))
        set_field(app, "reward", "matches:(")
        await until(pilot, lambda: "not a regular expression" in str(app.shown._field_problems))  # type: ignore[union-attr]
        hidden = [name for name, one in SETTINGS.items() if one.objectives and "reward" not in one.objectives]
        assert all(not app.shown.query_one(f"#{name}-row").display for name in hidden)


WRONG = {
    "beta": ("preference", "0", "above 0"), "sft_weight": ("preference", "-1", "from 0"), "reward": ("reward", "no-such", "no reward"),
    "samples": ("reward", "1", "2 to"), "answer_tokens": ("reward", "0", "1 to"), "temperature": ("reward", "0", "0.01 to"),
    "updates": ("reward", "x", "whole number"), "clip_ratio": ("reward", "1", "between 0 and 1"), "kl_weight": ("reward", "-1", "from 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WRONG))
def test_each_wrong_setting_of_an_objective_says_why(name: str) -> None:
    objective, text, why = WRONG[name]
    given = {"objective": objective, "reward": "full-stop"} if objective == "reward" else {"objective": objective}
    assert why in field_problems({**given, name: text}, PRESETS["toy"])[name]
    assert {*names_for("preference"), *names_for("reward")} - {*names_for("pretraining")} - set(CHOICES) == set(WRONG)
