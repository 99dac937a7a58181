"""Ladders that an earlier version began, which did not shorten a warm-up where a learning rate was given."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.training.run_helpers import words
from tui_llm.common.errors import UserError
from tui_llm.training.plan import fields
from tui_llm.training.plan import ladder as ladders
from tui_llm.training.plan.ladder import Ladder
from tui_llm.training.run.settings import preset

STEPS = 100  # fewer than ten times the warm-up of toy
GIVEN = {"layers": "1", "heads": "2", "width": "16", "block_size": "16", "learning_rate": "1e-3"}


@pytest.fixture(autouse=True)
def equal_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget of minutes or FLOPs pays for as many steps in each rung."""
    monkeypatch.setattr(ladders, "steps_of", lambda *_: STEPS)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def begun(text: Path, count: int, **more: Any) -> Ladder:
    """A ladder whose first `count` runs are those that the earlier version made."""
    ladder = Ladder(
        **{"name": "up", "corpus": (str(text),), "preset": "toy", "unit": "steps", "amount": float(STEPS), "given": GIVEN,
           "rungs": ("gpt2", "muon", "warm-momentum", "ema"), "device": "cpu"} | more
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr(fields, "MOST_WARM_UP", {})
        ladders.keep(ladder)
        for at in range(count):
            ladders.prepare(ladder, at)
    return ladder


@pytest.mark.parametrize("unit", ["steps", "flops", "minutes"])
def test_its_runs_are_still_its_own_and_further_rungs_have_their_warm_up(unit: str, text: Path) -> None:
    ladder = begun(text, 2, unit=unit)
    assert preset("toy").warmup_steps == 20 > STEPS // 10
    ladders.keep(ladder)  # started once more, as it was
    assert ladders.left(ladder) == [0, 1, 2, 3]
    assert [run.name for run in ladders.runs_of(ladder)] == ["up-0-gpt2", "up-1-muon"]
    made = [ladders.prepare(ladder, at).config().settings for at in range(4)]
    assert [s.warmup_steps for s in made] == [20] * 4
    assert [s.momentum_warmup_steps for s in made] == [0, 0, 20, 20]
    ladder.run(0).delete()  # the first one that is left says it
    assert ladders.prepare(ladder, 0).config().settings == made[0]
    assert ladders.delete("up") == 4 and not any(ladder.run(at).exists() for at in range(4))


def test_runs_of_both_versions_in_one_ladder_are_its_own(text: Path) -> None:
    ladder = begun(text, 2)
    run = ladder.run(1)
    config = run.config()
    run.write_config(dataclasses.replace(config, settings=dataclasses.replace(config.settings, warmup_steps=10)))
    assert ladders.left(ladder) == [0, 1, 2, 3] and ladders.delete("up") == 2


def test_muons_warm_up_of_the_preset_is_kept_too(text: Path) -> None:
    given = {**GIVEN, "tokenizer": "byte", "arch": "rope"}
    ladder = begun(text, 1, preset="modern", rungs=("ema", "rmsnorm", "warm-momentum"), given=given)
    made = [ladders.prepare(ladder, at).config().settings for at in range(3)]
    assert [(s.warmup_steps, s.momentum_warmup_steps) for s in made] == [(150, 300), (150, 300), (150, 20)]


def test_a_ladder_whose_first_rung_now_changes_nothing_goes_on(text: Path) -> None:
    """The warm-up of Muon's momentum is the rung's, now that the preset's is shortened."""
    more = {"preset": "modern", "rungs": ("warm-momentum", "ema"), "given": {**GIVEN, "tokenizer": "byte"}}
    ladder = begun(text, 1, **more)
    ladders.keep(ladder)
    assert ladders.left(ladder) == [0, 1]
    with pytest.raises(UserError, match="the rung warm-momentum changes nothing"):
        ladders.keep(dataclasses.replace(ladder, name="new"))


def test_a_new_ladder_shortens_its_warm_up_with_a_learning_rate_too(text: Path) -> None:
    ladder = begun(text, 0)
    assert [ladders.prepare(ladder, at).config().settings.warmup_steps for at in range(4)] == [10] * 4
    assert ladders.left(ladder) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("at", "given", "other"),
    [
        (0, {"warmup_steps": "7"}, {"warmup_steps": 20}),  # given: not a default
        (0, {}, {"warmup_steps": 0}),  # none at all
        (1, {}, {"min_learning_rate": 1e-6}),
        (3, {}, {"ema_decay": 0.0}),  # not what the rung is
        (2, {}, {"momentum_warmup_steps": 0}),
    ],
)
@pytest.mark.parametrize("unit", ["steps", "flops"])
def test_a_run_with_other_settings_is_not_of_the_ladder(
    unit: str, at: int, given: dict[str, str], other: dict[str, Any], text: Path
) -> None:
    ladder = begun(text, 4, unit=unit, given=GIVEN | given)
    run = ladder.run(at)
    config = run.config()
    run.write_config(dataclasses.replace(config, settings=dataclasses.replace(config.settings, **other)))
    with pytest.raises(UserError, match=f"run {run.name} is not of this ladder"):
        ladders.left(ladder)
    assert ladders.delete("up") == 3 and run.exists()
