"""The estimate of a run's time: its parts are those of the run, and the band follows from what was measured."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path

import pytest

from tests import HANG
from tui_llm.cli import main
from tui_llm.common import paths, run_load
from tui_llm.common.errors import UserError
from tui_llm.training.plan import run_time
from tui_llm.training.plan.run_time import RunTime, RunTimeMeasurement
from tui_llm.training.run.settings import PRESETS

TEXT = "the cat sat on the mat and the dog sat on the log. " * 400
PARTS = RunTime(4.0, 0.2, 1.0, 0.8, 400, 9, 9, 40, 16, 1024, 0.0, 1.0, "cpu", True)


def test_the_parts_of_a_run_as_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_time, "HANG", HANG / 2.0)  # × the seconds: a busy machine ends no measurement
    (tmp_path / "text.txt").write_text(TEXT)
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + 3600)  # set back between here and the process
    args = [
        "--preset",
        "toy",
        "--width",
        "16",
        "--steps",
        "30",
        "--eval-every",
        "10",
        "--checkpoint-every",
        "20",
        "--device",
        "cpu",
    ]
    assert main(["train", str(tmp_path / "text.txt"), *args, "--cost", "--measure", "--pin", "the cat", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = said["measured"]
    assert all(math.isfinite(found[name]) and found[name] > 0 for name in ("start", "step", "evaluation", "checkpoint"))
    assert (found["evaluations"], found["checkpoints"], found["rows"], found["whole"]) == (4, 2, 16, True)
    total = found["start"] + 30 * found["step"] + 4 * found["evaluation"] + 2 * found["checkpoint"]
    assert found["seconds"] == pytest.approx(total) == pytest.approx(sum(found["shares"].values()))
    assert found["low"] < found["seconds"] < found["high"]
    assert found["tokens_per_second"] == pytest.approx(16 * 64 / found["step"])
    assert not paths.runs_dir().exists() and list((paths.cache_dir() / "scratch").iterdir()) == []


def test_a_step_that_takes_too_long_is_measured_with_fewer_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_time, "HANG", HANG / 2.0)  # × the seconds: a busy machine ends no measurement
    (tmp_path / "text.txt").write_text(TEXT)
    settings = dataclasses.replace(PRESETS["toy"], grad_accumulation_steps=10**6)
    found = RunTimeMeasurement(settings, [str(tmp_path / "text.txt")], "cpu", seconds=2.0).take()
    assert not found.whole and found.rows <= settings.batch_size and found.checkpoint == 0
    assert found.step_tokens == settings.batch_size * 64 * 10**6
    low, high = found.band
    assert low < found.seconds / 1.3 and high > 1.3 * found.seconds
    assert "checkpoints not counted" in " ".join(run_time.lines(found, settings.batch_size))


def test_the_number_of_evaluations_and_checkpoints_is_that_of_the_loop() -> None:
    for steps, every in ((400, 50), (401, 50), (1, 50), (49, 50), (3, 1)):
        settings = dataclasses.replace(PRESETS["toy"], steps=steps, eval_every=every, checkpoint_every=every)
        due = [n for n in range(1, steps + 1) if n == 1 or n % every == 0 or n == steps]
        saved = [n for n in range(1, steps + 1) if n % every == 0 or n == steps]
        assert run_time.counts(settings) == (len(due), len(saved))


def test_the_band_is_wider_where_other_processes_take_the_cores() -> None:
    low, high = PARTS.band
    assert PARTS.seconds == pytest.approx(4 + 80 + 9 + 7.2) and low < PARTS.seconds < high
    busy = dataclasses.replace(PARTS, contention=2.0)
    assert busy.seconds == PARTS.seconds and busy.band[0] == pytest.approx(low / 2) and busy.band[1] > 1.4 * high
    assert "other processes took 50 %" in " ".join(run_time.lines(busy, 16)) and not PARTS.busy
    unknown = dataclasses.replace(PARTS, contention=None)
    assert unknown.band == PARTS.band and not unknown.busy
    uneven = dataclasses.replace(PARTS, spread=0.1)
    assert uneven.band[0] < low and uneven.band[1] > high


def test_the_load_is_the_share_of_time_spent_waiting_for_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([{"7": (1_000, 500)}, {"7": (2_500, 2_000), "8": (500, 500)}, {"7": (2_500, 2_000), "8": (500, 500)}])
    monkeypatch.setattr(run_load, "_times", lambda: next(times))
    load = run_load.RunLoad()
    assert load.contention() == 2.0  # ran 2,000 ns, waited for as many
    assert load.longest_wait() == 1_500e-9  # of one thread
    monkeypatch.undo()
    load = run_load.RunLoad()
    assert sum(range(300_000)) and ((found := load.contention()) is None or found >= 1)


def test_cancelling_kills_the_process_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    measurement = RunTimeMeasurement(PRESETS["toy"], [str(tmp_path / "text.txt")], "cpu")
    measurement.cancel()
    with pytest.raises(UserError, match="it was stopped"):
        measurement.take()
    assert measurement.process.returncode == -9 and list((paths.cache_dir() / "scratch").iterdir()) == []
