"""A seeded sample of the faults that `scripts/io_faults.py --all` tries."""

from __future__ import annotations

import gc
import multiprocessing
import random
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.fault_scenarios import SCENARIOS
from tests.faults import HOW, Trial

SEED, SAMPLE = 13, 4  # attempts of each scenario: one of each kind of fault


@pytest.fixture(scope="module")
def small() -> Iterator[Executor]:
    """A process that has imported only the scenarios: to fork it takes a third as long as to fork one with all tests."""
    process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=gc.freeze)
    yield process
    process.shutdown()


def test_the_documented_number_of_scenarios_and_ways() -> None:
    text = (Path(__file__).parents[1] / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert f"(every write of {len(SCENARIOS)} scenarios, in four ways)" in text and len(HOW) == 4


@pytest.mark.parametrize("name", SCENARIOS)
def test_files_are_flushed_and_complete_ones_stay_so_after_a_fault_at_any_write(
    name: str, tmp_path: Path, small: Executor
) -> None:
    try:
        found = small.submit(violations, name, tmp_path).result()
    except BaseException:  # a hang's time-out: the process would hang in the tests that follow, too
        for process in multiprocessing.active_children():
            process.kill()
        raise
    assert found == []


def violations(name: str, folder: Path) -> list[str]:
    """Returns what is not flushed, and what a sample of faults breaks."""
    draw = random.Random(f"{SEED} {name}")
    trial = Trial(SCENARIOS[name], folder / "trial")
    found = list(map(str, trial.unflushed))
    for how in draw.sample(HOW, SAMPLE):
        found += trial.attempt(draw.randint(1, len(trial.calls)), how)
    return found
