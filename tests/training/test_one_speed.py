"""Tokens/s, MFU and the remaining time are the same numbers at the same step, wherever they are shown: over the last 50 steps."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from tests.training.run_helpers import make, words
from tui_llm.cli import main
from tui_llm.common.numbers import duration
from tui_llm.training.plan.follow import _Follower
from tui_llm.training.run.compare import compare
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import RunReader, seconds_left
from tui_llm.tui.runs.pane_lines import numbers_line

STEPS, KEPT = 90, 30
RATES = [105_915.0 if step % 3 else 72_200.0 for step in range(1, STEPS + 1)]  # the last step's is not the mean


def wrote(run: Run, first: int, last: int) -> None:
    """Appends the steps from `first` to `last`; every tenth ends with an evaluation of 5 s."""
    with run.metrics_path.open("ab") as file:
        for step in range(first, last + 1):
            row = {"step": step, "loss": 2.0, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": RATES[step - 1],
                   "val_loss": 2.0, "time": 1e9 + step + 5 * (step // 10), "memory_bytes": 313e6}  # fmt: skip
            file.write(json.dumps(row).encode() + b"\n")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    text = tmp_path / "text.txt"
    text.write_text(words(3000))
    made = make("run", text, steps=200)
    made.write_status("running", steps=200, step=STEPS, peak_flops=1e12, flops_per_token=1e6)
    return made


@pytest.mark.parametrize("resumed", [False, True])
def test_the_command_that_trains_and_the_app_show_the_same_speed(
    run: Run, capsys: pytest.CaptureFixture[str], resumed: bool
) -> None:
    if resumed:
        wrote(run, 1, KEPT)
        checkpoint = run.path / f"checkpoint-{KEPT:06d}"
        checkpoint.mkdir()
        for name in ("config.json", "training.json"):
            (checkpoint / name).write_text("{}")
        assert [step for step, _ in run.checkpoints()] == [KEPT]
    follower = _Follower(run, as_json=False, quiet=False)
    wrote(run, KEPT + 1 if resumed else 1, STEPS)
    follower.poll()
    last = capsys.readouterr().out.splitlines()[-1]
    rate = statistics.harmonic_mean(RATES[-50:])
    assert last.startswith(f"step {STEPS}/200 ") and f"  {rate:,.0f} tokens/s" in last
    reader = RunReader(run)
    snapshot = reader.read()
    assert snapshot is not None and f"tokens/s {rate:,.0f}" in numbers_line(snapshot, 200, 3).plain
    assert snapshot.mfu == pytest.approx(rate * 1e6 / 1e12)
    assert f"MFU {100 * snapshot.mfu:.1f} %" in last
    left = (200 - STEPS) * (49 + 5 * 5) / 49  # 49 gaps, five with an evaluation
    assert seconds_left(list(reader.recent), 200) == pytest.approx(left) and last.endswith(f"  {duration(left)} left")


def test_the_list_of_runs_and_the_comparison_have_it_too(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(run, 1, STEPS)
    rate = statistics.harmonic_mean(RATES[-50:])
    assert main(["runs", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    assert (row["tokens_per_second"], row["mfu"]) == (pytest.approx(rate), pytest.approx(rate * 1e6 / 1e12))
    (outcome,) = compare([run]).outcomes
    assert outcome.tokens_per_second == pytest.approx(rate)
