"""Measured steps: a few real ones, in a process that leaves nothing behind and can be killed."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import HANG
from tui_llm.cli import main
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import cost, subprocesses
from tui_llm.training.plan.step_time import Measurement, Rate
from tui_llm.training.run.settings import PRESETS
from tui_llm.training.worker import step_time

TOY = PRESETS["toy"]


def test_a_rate_of_the_toy_preset_without_a_text_as_typed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Measurement.__init__, "__defaults__", (HANG / 2, None)
    )  # the limit, of time; no step takes long
    assert main(["train", "--preset", "toy", "--cost", "--measure", "--device", "cpu", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = said["measured"]
    assert math.isfinite(found["tokens_per_second"]) and found["tokens_per_second"] > 0
    assert 1 <= found["steps"] <= 8 and 1 <= found["rows"] <= TOY.batch_size and found["device"] == "cpu"
    assert found["seconds"] == pytest.approx(said["tokens"] / found["tokens_per_second"])
    assert not paths.runs_dir().exists()


def test_cancelling_kills_the_process() -> None:
    measurement = Measurement(TOY, cost.shape(TOY, 257), "cpu")
    measurement.cancel()
    with pytest.raises(UserError, match="it was stopped"):
        measurement.take()
    assert measurement.process.returncode == -9


# Never measures: a real process may have measured a step before this one's timer gets a core.
NEVER = "import time; print({ready!r}, flush=True); time.sleep({hang})"


@pytest.mark.parametrize("ready", [json.dumps({"ready": True}), ""], ids=["measuring", "starting"])
def test_a_measurement_that_takes_too_long_is_killed_and_reported(ready: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> subprocess.Popen[bytes]:
        program = NEVER.format(ready=ready, hang=HANG)
        return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr(subprocesses, "start", start)
    monkeypatch.setattr("tui_llm.training.plan.step_time.STARTING", HANG if ready else 0.05)
    measurement = Measurement(TOY, cost.shape(TOY, 257), "cpu", seconds=0.05)
    with pytest.raises(UserError, match="not one step"):
        measurement.take()
    assert measurement.process.returncode == -9


def test_a_slow_step_counts_at_once() -> None:
    """If there is only time for one row, the second single-row step is the first result."""
    shape = cost.shape(TOY, 257)
    found = list(step_time.measure(TOY, shape, torch.device("cpu"), 1e-6))
    assert [value["rows"] for value in found] == [1] and found[0]["tokens"] == TOY.block_size
    many = list(step_time.measure(TOY, shape, torch.device("cpu"), HANG))
    assert len(many) == step_time.STEPS and {value["rows"] for value in many} == {TOY.batch_size}


def test_a_model_larger_than_memory_is_refused(tmp_path: Path) -> None:
    if not Path("/proc/meminfo").exists():
        pytest.skip("the free memory can't be told here")
    huge = GPTConfig(50257, 64, 4000, 16, 16384)
    with pytest.raises(UserError, match="GB of memory"):
        Measurement(dataclasses.replace(TOY, width=16384, heads=16, layers=4000), huge, "cpu").take()


def test_the_time_is_that_of_all_tokens() -> None:
    assert Rate(200.0, 3, 8, "cpu").seconds(1000) == 5.0
