"""Alarms: each fault raises its own, healthy curves raise none, a live run gives what a finished one gives; and real workers."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.run_helpers import lines, make, words, work
from tui_llm import cli, run_health
from tui_llm.common.errors import UserError
from tui_llm.training.plan.follow import _Follower
from tui_llm.training.run import alarm_detectors, health
from tui_llm.training.run.alarm_kinds import (
    DEAD_GRADIENT,
    DIVERGENCE,
    KINDS,
    LOW_LOSS,
    OUTLIER_ROW,
    OVERFITTING,
    PLATEAU,
    SPIKE,
    Alarm,
)
from tui_llm.training.run.alarms import MOST, AlarmReader
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.settings import TrainingSettings, from_fields, learning_rate
from tui_llm.training.run.snapshot import RunReader

SETTINGS = from_fields({"steps": 1000, "warmup_steps": 20, "learning_rate": 1e-3, "min_learning_rate": 1e-4})
FACTS = {"unigram_entropy": 3.3, "train_tokens": 1e6}
Change = Callable[[int, Metric], Metric]


def _changed(metric: Metric, **fields: float) -> Metric:
    from dataclasses import replace

    return replace(metric, **fields)  # type: ignore[arg-type]


def curve(change: Change = lambda _step, metric: metric, seed: int = 1, noise: float = 0.05) -> list[Metric]:
    """A healthy run: a power law with normal noise, an evaluation every 50 steps; `change` makes the fault."""
    draw, made = random.Random(seed), []
    for step in range(1, SETTINGS.steps + 1):
        level = 1.8 + 3.7 * (1 + step / 20) ** -0.6
        metric = Metric(
            step, level + draw.gauss(0, noise), learning_rate(SETTINGS, step), 0.5 + abs(draw.gauss(0, 0.1)), 1000.0,
            level + 0.05 if step % 50 == 0 else None,
        )  # fmt: skip
        made.append(change(step, metric))
    return made


def raised(metrics: list[Metric], settings: TrainingSettings = SETTINGS) -> list[Alarm]:
    reader = AlarmReader(settings, FACTS)
    reader.add(metrics)
    return list(reader.alarms)


def kinds(metrics: list[Metric]) -> list[str]:
    return [alarm.kind for alarm in raised(metrics)]


@pytest.mark.parametrize("seed", range(10))
def test_a_healthy_run_raises_no_alarm(seed: int) -> None:
    assert raised(curve(seed=seed, noise=0.02 * (1 + seed))) == []


def test_a_spike_has_its_step_and_its_numbers() -> None:
    found = raised(curve(lambda step, m: _changed(m, loss=m.loss + 2, grad_norm=9.0) if step in (500, 501, 800) else m))
    assert [(one.kind, one.step) for one in found] == [(SPIKE, 500), (SPIKE, 800)]
    assert "median of 2.3" in found[0].evidence and "Gradient norm 9, usually 0.5" in found[0].evidence
    assert "warm-up" in found[0].advice


def test_a_rising_loss_is_a_divergence_since_its_lowest_mean() -> None:
    found = raised(curve(lambda step, m: _changed(m, loss=m.loss + max(0, step - 400) / 100)))
    assert [one.kind for one in found] == [DIVERGENCE]
    assert 380 <= found[0].since <= 420 < found[0].step < 600
    assert "learning rate" in found[0].evidence


def test_a_loss_that_is_not_finite_is_a_divergence() -> None:
    for value in (math.nan, math.inf):
        found = raised(curve(lambda step, m, value=value: _changed(m, loss=value) if step == 300 else m))  # type: ignore[misc]
        assert [(one.kind, one.step) for one in found] == [(DIVERGENCE, 300)]


def test_a_flat_loss_at_a_high_rate_is_a_plateau_once() -> None:
    found = raised(curve(lambda step, m: _changed(m, loss=2.9 + (m.loss - 1.8) * 0.02)))
    assert [one.kind for one in found] == [PLATEAU]
    assert "learning rate of" in found[0].evidence and found[0].step < 700


def test_a_loss_that_stays_at_the_entropy_of_tokens_uses_no_context() -> None:
    """A plateau; a divergence if the gradient was huge for a moment: the rate is too high."""

    def stuck(step: int, m: Metric) -> Metric:
        return _changed(m, loss=3.3 + 0.1 * (1 - step / 1000) + (m.loss - 1.8) * 0.02)

    (found,) = raised(curve(stuck))
    assert found.kind == PLATEAU and "not below the entropy of single tokens, 3.300" in found.evidence
    found = raised(curve(lambda step, m: _changed(stuck(step, m), grad_norm=50.0 if step == 13 else 0.3)))[0]
    assert found.kind == DIVERGENCE and "50 at step 13" in found.evidence and found.since == 13


def test_a_flat_loss_at_the_known_minimum_is_none() -> None:
    reader = AlarmReader(SETTINGS, {**FACTS, "floor": 2.85})
    reader.add(curve(lambda step, m: _changed(m, loss=2.9 + (m.loss - 1.8) * 0.02)))
    assert reader.alarms == ()


def test_a_rising_validation_loss_is_overfitting() -> None:
    def memorized(step: int, m: Metric) -> Metric:
        val = None if m.val_loss is None else 2.5 + abs(step - 400) / 500
        return _changed(m, loss=m.loss * (1 - step / 2000), val_loss=val)  # type: ignore[arg-type]

    found = raised(curve(memorized))
    assert [one.kind for one in found] == [OVERFITTING]
    assert found[0].since == 400 and "validation loss 2.500 at step 400" in found[0].evidence
    assert "the text was read" in found[0].evidence


def _predictable(step: int, m: Metric) -> Metric:
    """A training loss that falls to nearly 0."""
    return _changed(m, loss=m.loss * 0.99**step)


def test_a_loss_lower_than_natural_texts_is_no_overfitting_while_the_validation_loss_falls() -> None:
    """Metrics of a predictable text, whose validation loss is lower at each evaluation: nothing says that more steps harm."""

    def falling(step: int, m: Metric) -> Metric:
        m = _predictable(step, m)
        return m if m.val_loss is None else _changed(m, val_loss=m.loss * 1.1)

    metrics = curve(falling, noise=0.0)
    measured = [m.val_loss for m in metrics if m.val_loss is not None]
    assert len(measured) == 20 and measured == sorted(measured, reverse=True)
    found = raised(metrics)
    assert [one.kind for one in found] == [LOW_LOSS]
    (alarm,) = found
    (evaluated,) = (m for m in metrics if m.step == alarm.step // 50 * 50)
    assert f"validation loss {evaluated.val_loss:.3f} at step {evaluated.step}, its lowest so far" in alarm.evidence
    each = SETTINGS.batch_size * SETTINGS.block_size * SETTINGS.grad_accumulation_steps
    assert f"the text was read {alarm.step * each / FACTS['train_tokens']:.1f} times" in alarm.evidence
    for claim in ("overfit", "worse", "by heart"):
        assert claim not in alarm.evidence
    assert "worse" not in alarm.advice and "No fault by itself" in alarm.advice


def test_a_low_loss_with_a_validation_loss_that_rises_is_overfitting_too() -> None:
    """The same training losses: each alarm states its own evidence."""

    def memorized(step: int, m: Metric) -> Metric:
        m = _predictable(step, m)
        return m if m.val_loss is None else _changed(m, val_loss=2.5 + abs(step - 100) / 500)

    found = {one.kind: one for one in raised(curve(memorized, noise=0.0))}
    assert set(found) == {LOW_LOSS, OVERFITTING}
    assert found[OVERFITTING].since == 100 and "2.500 at step 100, 2.800 now" in found[OVERFITTING].evidence
    assert "more steps make the model worse" in found[OVERFITTING].advice
    low, evaluated = found[LOW_LOSS], found[LOW_LOSS].step // 50 * 50
    assert evaluated > 100
    said = (
        f"validation loss {2.5 + (evaluated - 100) / 500:.3f} at step {evaluated}, above its lowest, 2.500 at step 100"
    )
    assert said in low.evidence


def test_a_low_loss_without_a_validation_loss_says_that_there_is_none() -> None:
    found = raised(curve(lambda step, m: _changed(_predictable(step, m), val_loss=None), noise=0.0))  # type: ignore[arg-type]
    assert [one.kind for one in found] == [LOW_LOSS] and "no validation loss yet" in found[0].evidence


@pytest.mark.parametrize("norm", [0.0, 1e-9])
def test_a_dead_gradient(norm: float) -> None:
    found = raised(curve(lambda step, m: _changed(m, grad_norm=norm) if step > 300 else m))
    assert [(one.kind, one.since, one.step) for one in found if one.kind == DEAD_GRADIENT] == [
        (DEAD_GRADIENT, 301, 308)
    ]
    assert next(one.kind for one in raised(curve(lambda _step, m: _changed(m, grad_norm=0.0)))) == DEAD_GRADIENT


def test_line_by_line_gives_the_same_alarms() -> None:
    metrics = curve(lambda step, m: _changed(m, loss=m.loss + (2 if step % 100 == 0 else 0) + max(0, step - 600) / 50))
    whole, live = AlarmReader(SETTINGS, FACTS), AlarmReader(SETTINGS, FACTS)
    new = whole.add(metrics)
    one_by_one = [alarm for metric in metrics for alarm in live.add([metric])]
    assert new == one_by_one == list(live.alarms) and len(new) > 5
    assert {one.kind for one in new} <= set(KINDS)


def test_memory_is_bounded() -> None:
    reader = AlarmReader(from_fields({"steps": 100_000, "warmup_steps": 1}), FACTS)
    for step in range(1, 14_000):
        reader.add([Metric(step, 9.0 if step % 100 == 0 else 3.0 + (step % 7) / 100 - step / 1e5, 1e-3, 1.0, 1.0)])
    assert len(reader.alarms) == MOST and reader.left_out > 30


def test_a_run_on_rewards_has_no_alarm_for_its_loss() -> None:
    settings = from_fields({"objective": "reward", "reward": "contains:a", "from_model": "nano", "steps": 100})
    assert raised([Metric(step, (-1) ** step * 5.0, 1e-4, 0.0, 1.0) for step in range(1, 100)], settings) == []
    assert kinds([Metric(1, math.nan, 1e-4, 0.0, 1.0)]) == [DIVERGENCE]


# ── a run's files ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path))
    return tmp_path


def test_damaged_alarms_are_skipped(tmp_path: Path) -> None:
    run = make("damaged", _text(tmp_path))
    good = Alarm(SPIKE, 7, 7, "a\x1b[31m")
    health.record(run, [good])
    with health.alarms_path(run).open("ab") as file:
        file.write(
            b'{"step": 3}\n{"step": 1, "since": 2, "kind": "spike", "evidence": ""}\nx\n{"step": 9, "since": 9, "kind": "b'
        )
    assert health.recorded(run) == [good]
    with pytest.raises(UserError, match="no run"):
        run_health("other")


def _text(folder: Path, noise: bool = False) -> Path:
    path = folder / "tales.txt"
    text = words(20_000)
    if noise:  # one stretch of bytes that no other part of the text resembles
        draw = random.Random(3)
        text = text[:40_000] + "".join(chr(draw.randrange(33, 127)) for _ in range(1500)) + text[40_000:]
    path.write_text(text)
    return path


def test_a_worker_records_spikes_once_and_a_resumed_one_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stretch of noise in the corpus: its rows are the spikes, in batches of two rows."""
    fields = {
        "steps": 300,
        "batch_size": 2,
        "learning_rate": 2e-2,
        "eval_every": 300,
        "checkpoint_every": 50,
        "sample_tokens": 0,
    }
    run = make("noisy", _text(tmp_path, noise=True), **fields)
    assert work(run, die=("half a line", 260)) == -9
    assert work(run) == 0
    found = [one for one in lines(health.alarms_path(run)) if one["kind"] != OUTLIER_ROW]  # see test_outlier_rows.py
    assert found and {one["kind"] for one in found} == {SPIKE}
    assert len({one["step"] for one in found}) == len(found)
    assert all(one["advice"] and one["evidence"] for one in found)
    reader = RunReader(run)
    snapshot = reader.read()
    while snapshot.reading:
        snapshot = reader.read()
    assert snapshot.health is not None and snapshot.health.band is None  # the run is done
    spikes = [(one.kind, one.step) for one in snapshot.health.alarms if one.kind != OUTLIER_ROW]
    assert spikes == [(one["kind"], one["step"]) for one in found]
    assert run_health("noisy").alarms == snapshot.health.alarms and run_health("noisy").band is None
    assert cli.main(["runs"]) == 0
    assert f" at step {found[-1]['step']}" in capsys.readouterr().out
    assert cli.main(["runs", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    shown = [one["step"] for one in row["alarms"] if one["kind"] != OUTLIER_ROW]
    assert shown == [one["step"] for one in found] and row["band"] is None


def test_the_command_that_trains_says_alarms_as_they_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make("tales", _text(tmp_path))
    spike = Alarm(SPIKE, 1070, 1070, "loss 9 \x1b[31m")
    health.record(run, [Alarm(SPIKE, 5, 5, "before")])
    followers = [_Follower(run, as_json, quiet) for as_json, quiet in ((False, False), (True, False), (False, True))]
    health.record(run, [spike, Alarm(OVERFITTING, 1080, 1000, "rises")])
    for follower in followers:
        follower.poll()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("! spike at step 1,070: loss 9 ") and said[0].endswith(
        "; its rows: tui-llm replay tales --step 1070"
    )
    assert "\x1b" not in said[0] and said[1:] == ["! overfitting at step 1,080: rises"]
    rows = Alarm(OUTLIER_ROW, 1090, 1090, "row 3", 2)
    health.record(run, [rows])
    followers[0].poll()
    assert capsys.readouterr().out == "! outlier row at step 1,090: row 3; its rows: tui-llm replay tales --step 1090\n"
    health.record(run, [dataclasses.replace(rows, evidence="row 3. 2 steps have such a row", count=2)])
    followers[0].poll()
    assert capsys.readouterr().out == ""  # of the same alarm, more steps are no news


def test_the_documented_numbers_are_those_of_the_detectors() -> None:
    documented = (Path(__file__).parents[2] / "docs/training.md").read_text()
    d = alarm_detectors
    for said in (
        f"a loss {d.SPREADS:g} robust standard deviations, and {100 * d.RISE:g} %, above the median of the {d.RECENT} steps before it",
        f"blocks of steps ({100 * d.BLOCK:g} % of the run each, at least {d.SMALLEST_BLOCK} steps) is more than {100 * d.DIVERGED:g} % above the lowest one",
        f"over {d.FLAT_BLOCKS} blocks the fitted mean loss falls by less than {100 * d.FLAT:g} %",
        f"the learning rate is at least {d.HIGH_RATE:g} × its peak",
        f"{100 * d.WORSE:g} % above the lowest validation loss",
        f"a loss below {100 * d.LOW:g} % of the entropy of single tokens",
        f"the warm-up and the first {d.RECENT} steps are not looked at",
        f"the gradient's norm was once above {d.THROWN:g} × its usual value",  # a divergence: no context is used
        f"over {d.FLAT_BLOCKS} blocks after the warm-up, at any rate, the mean loss falls by at most {100 * d.HARDLY:g} % and stays above"
        f" {d.ABOVE_UNIGRAM:g} × the entropy of single tokens",  # a plateau: the same
    ):
        assert said in documented


def test_a_worker_that_gives_up_records_why(tmp_path: Path) -> None:
    run = make("rate", _text(tmp_path), steps=200, learning_rate=1e4, warmup_steps=0, clip=0.0, sample_tokens=0)
    assert work(run) == 1
    found = run_health("rate").alarms
    assert DIVERGENCE in [one.kind for one in found]
    assert run.status().state == "failed" and any("learning rate" in one.evidence for one in found)


def test_how_often_a_branchs_text_was_read_counts_its_parents_tokens() -> None:
    worse = curve(lambda step, metric: _changed(metric, val_loss=3.0 + step / 400 if step % 50 == 0 else None))
    settings, tokens = SETTINGS, FACTS["train_tokens"]
    each = settings.batch_size * settings.block_size * settings.grad_accumulation_steps
    for begin in ((0, 0), (100, 7 * each)):
        reader = AlarmReader(settings, FACTS, begin=begin)
        reader.add(worse)
        (alarm,) = (one for one in reader.alarms if one.kind == OVERFITTING)
        read = (begin[1] + (alarm.step - begin[0]) * each) / tokens
        assert f"the text was read {read:.1f} times" in alarm.evidence


def test_the_steps_after_the_warm_up_are_counted_from_it() -> None:
    flat = curve(lambda _step, metric: _changed(metric, loss=FACTS["unigram_entropy"] * 1.2))
    (alarm,) = (one for one in raised(flat) if "no context is used" in one.evidence)
    assert f"{alarm.step - SETTINGS.warmup_steps:,} steps after the warm-up" in alarm.evidence
