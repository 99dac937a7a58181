"""A seeded sample of the faults that `scripts/io_faults.py --all` tries."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fault_scenarios import SCENARIOS
from tests.faults import HOW, Trial

SEED, SAMPLE = 13, 4  # attempts of each scenario: one of each kind of fault


def test_the_documented_number_of_scenarios_and_ways() -> None:
    text = (Path(__file__).parents[1] / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert f"(every write of {len(SCENARIOS)} scenarios, in four ways)" in text and len(HOW) == 4


@pytest.mark.parametrize("name", SCENARIOS)
def test_files_are_flushed_and_complete_ones_stay_so_after_a_fault_at_any_write(name: str, tmp_path: Path) -> None:
    draw = random.Random(f"{SEED} {name}")
    trial = Trial(SCENARIOS[name], tmp_path / "trial")
    assert trial.unflushed == []
    for how in draw.sample(HOW, SAMPLE):
        assert trial.attempt(draw.randint(1, len(trial.calls)), how) == []
