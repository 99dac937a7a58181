"""Reading a growing run: in parts, in bounded memory, with speed and remaining time."""

from __future__ import annotations

from pathlib import Path

import fake_run
import pytest

from tui_llm.common.numbers import duration
from tui_llm.training.run import snapshot as run_snapshot
from tui_llm.training.run.curve import BUCKETS
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.snapshot import CHUNK, RunReader, sampled_losses, seconds_left, speed


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path))
    return tmp_path


def test_a_long_run_is_read_in_parts_and_kept_in_bounded_memory() -> None:
    run = fake_run.make("long", steps=10**6)
    spike = 33_333
    with run.metrics_path.open("wb") as file:
        file.writelines(fake_run.metric_line(s, loss=50.0 if s == spike else 2.0) for s in range(1, 60_001))
    reader = RunReader(run)
    parts = [reader.read()]
    while parts[-1].reading:
        parts.append(reader.read())
    assert len(parts) >= run.metrics_path.stat().st_size // CHUNK
    assert parts[-1].last is not None and parts[-1].last.step == 60_000
    assert len(parts[-1].train) <= 2 * BUCKETS and (spike, 50.0) in parts[-1].train
    before = reader.tail.offset
    fake_run.add(run, 60_001, 60_001)
    assert reader.read().status.step == 60_001
    assert reader.tail.offset - before < 300  # only the new lines
    glimpse = sampled_losses(run.metrics_path, 12)
    assert 10 <= len(glimpse) <= 12 and set(glimpse) == {2.0}


def test_a_very_long_run_first_shows_a_coarse_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_snapshot, "LONG", CHUNK)
    run = fake_run.make("very-long", steps=10**6)
    with run.metrics_path.open("wb") as file:
        file.writelines(fake_run.metric_line(s, loss=60_000 / (s + 10_000)) for s in range(1, 30_001))
    first = (reader := RunReader(run)).read()
    assert first.reading and first.train[0][0] < 300 and first.train[-1][0] > 29_900
    assert all(loss == 60_000 / (step + 10_000) for step, loss in first.train)  # all points are real values
    while (snapshot := reader.read()).reading:
        assert snapshot.train == first.train  # the sampled curve is shown until all is read
    assert snapshot.train[0] == (1, 60_000 / 10_001) and snapshot.train[-1][0] == 30_000
    fake_run.add(run, 30_001, 30_001)
    assert reader.read().train[-1][0] == 30_001


def metric(step: int, time: float, rate: float = 100.0) -> Metric:
    return Metric(step, 1.0, 1e-3, 1.0, rate, None, time)


def test_the_time_left_follows_recent_steps_without_pauses() -> None:
    steady = [metric(step, 2.0 * step) for step in range(1, 11)]
    assert seconds_left(steady, 100) == 180.0
    paused = steady[:5] + [metric(m.step, m.time + 7200) for m in steady[5:]]
    assert seconds_left(paused, 100) == 180.0
    assert seconds_left(steady, 10) == 0.0
    assert seconds_left(steady[:1], 100) is None


def test_the_first_steps_after_a_pause_give_no_time_left_of_days() -> None:
    """A run of 10 s a step that was stopped after few steps, and resumed eight hours later."""
    for kept in (1, 2, 3):
        recent = [metric(step, 10.0 * step + (28_800 if step > kept else 0)) for step in range(1, kept + 4)]
        for shown in range(kept + 1, kept + 4):
            assert seconds_left(recent[:shown], 1000) in (None, 10.0 * (1000 - shown)), (kept, shown)
        assert seconds_left(recent, 1000) == 10.0 * (1000 - len(recent)), "two steps after the pause are enough"


def test_speed_is_tokens_over_time() -> None:
    # Two steps of 100 tokens at 100 and 300 tokens/s: 200 tokens in 1 + 1/3 seconds.
    assert speed([metric(1, 0, 100.0), metric(2, 0, 300.0)]) == pytest.approx(150.0)
    assert speed([metric(1, 0, float("nan"))]) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (42.4, "42 s"),
        (200, "3 min 20 s"),
        (3909, "1 h 5 min"),
        (18_420, "5 h 7 min"),
        (273_600, "3 d 4 h"),
        (float("inf"), "∞"),
        (float("nan"), "∞"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
