"""Requests during training: a checkpoint is saved once; a resumed run changes the learning rate at the same step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.training.run_helpers import TINY, contents, leftovers, losses, make, words
from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.training.plan import launch
from tui_llm.training.run import changes, jsonl
from tui_llm.training.run.changes import LearningRateChange, settings_at
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import from_fields, learning_rate
from tui_llm.training.worker import job, process
from tui_llm.training.worker.distributed import Stopped
from tui_llm.training.worker.worker import Worker


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


class Killed(BaseException):
    """Ends a worker without saving, like SIGKILL."""


def work(run: Run, at: dict[int, Any] | None = None) -> None:
    """Runs a worker in this process; `at` maps a step to what is done once its metrics are written."""
    whole = jsonl.append

    def append(file: Any, value: dict[str, Any]) -> None:
        whole(file, value)
        if "loss" in value and at and value["step"] in at:
            at.pop(value["step"])()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "append", append)
        with run.held(1):
            job.train(Worker(run))


def kill() -> None:
    raise Killed


def test_a_changed_learning_rate_applies_from_the_next_step_and_scales_the_rest(text: Path) -> None:
    run = make("run", text)
    work(run, {12: lambda: launch.change_learning_rate(run, 2e-3)})
    rates = [row[2] for row in losses(run)]
    plain = [learning_rate(TINY, step) for step in range(1, 31)]
    assert rates[:12] == plain[:12]
    assert rates[12:] == pytest.approx([r * 2e-3 / TINY.learning_rate for r in plain[12:]])
    assert [(c.step, c.learning_rate) for c in changes.read(run)] == [(13, 2e-3)]


def test_a_run_that_is_killed_changes_at_the_same_step_again(text: Path) -> None:
    unbroken, broken = make("unbroken", text), make("broken", text)
    work(unbroken, {12: lambda: launch.change_learning_rate(unbroken, 2e-3)})
    with pytest.raises(Killed):  # at step 13, with a checkpoint of step 7: the step with the change is repeated
        work(broken, {12: lambda: launch.change_learning_rate(broken, 2e-3), 13: kill})
    with pytest.raises(Killed):  # killed again, before the step with the change
        work(broken, {9: kill})
    work(broken)
    assert losses(broken) == losses(unbroken)
    assert contents(broken.checkpoints()[-1][1]) == contents(unbroken.checkpoints()[-1][1])
    assert len(changes.read(broken)) == 1


def test_the_last_request_wins_and_applies_after_a_resume(text: Path) -> None:
    run = make("run", text)
    with pytest.raises(Killed):
        work(run, {12: lambda: launch.change_learning_rate(run, 2e-3), 13: kill})
    launch.change_learning_rate(run, 5e-3)  # no worker: it applies from step 8 on, where the resumed run starts
    work(run)
    rates = [row[2] for row in losses(run)]
    assert rates[7:] == pytest.approx([learning_rate(TINY, step) / 2 for step in range(8, 31)])
    run.write_status("finished")
    with pytest.raises(UserError, match="is finished"):
        launch.change_learning_rate(run, 1e-3)


def test_one_checkpoint_per_save_request(text: Path) -> None:
    run, seen = make("run", text, checkpoint_every=1000), []

    def look() -> None:
        seen.append([step for step, _ in run.checkpoints()])

    work(run, {3: lambda: changes.request_save(run), 4: look, 5: look, 6: lambda: changes.request_save(run), 8: look})
    assert seen == [[3], [3], [3, 6]]
    with pytest.raises(UserError, match="not being trained"):
        launch.save(run)


def test_a_save_that_is_requested_before_the_first_step_waits_for_it(text: Path) -> None:
    run, seen = make("run", text, checkpoint_every=1000), []
    changes.request_save(run)

    def look() -> None:
        seen.append(([step for step, _ in run.checkpoints()], run.status().message))

    work(run, {1: look, 2: look})
    assert [steps for steps, _ in seen] == [[], [1]]
    assert "saved" not in seen[0][1] and "saved at step 1, as requested" in seen[1][1]


def test_changes_in_closed_form() -> None:
    made = [LearningRateChange(10, 4.0, 1), LearningRateChange(20, 1.0, 2), LearningRateChange(5, 3.0, 3)]
    s = from_fields({"learning_rate": 2.0, "min_learning_rate": 0.5}, TINY)
    assert [settings_at(s, made[:2], n).learning_rate for n in (9, 10, 19, 20)] == [2.0, 4.0, 4.0, 1.0]
    assert [settings_at(s, made, n).learning_rate for n in (4, 5, 30)] == [2.0, 3.0, 3.0]
    assert settings_at(s, made, 5).min_learning_rate == 0.75
    zero = from_fields({"learning_rate": 0.0}, TINY)
    assert settings_at(zero, made, 5).min_learning_rate == 0.0


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_invalid_learning_rates_are_refused_and_skipped(text: Path, rate: float) -> None:
    run = make("run", text)
    with pytest.raises(UserError, match="from 0 up"):
        launch.change_learning_rate(run, rate)
    assert changes.take(run, [], 1, {"learning_rate": {"peak": rate, "asked": 1}}) == []


@pytest.mark.parametrize("asked", [3, "x", {}, {"peak": "x", "asked": 1}, {"peak": 1}, [1], None])
def test_an_invalid_control_file_changes_nothing(text: Path, asked: object) -> None:
    assert changes.take(make("run", text), [], 1, {"learning_rate": asked}) == []


def test_a_damaged_change_list_is_reported(text: Path) -> None:
    run = make("run", text)
    (run.path / "changes.json").write_text('[{"step": 3}]')
    with pytest.raises(UserError, match="not a list of changes"):
        work(run)


def test_as_typed(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make("run", text)
    with run.held(patience=1):  # as its worker does
        assert main(["control", "run", "--learning-rate", "3e-4", "--pause"]) == 0
        said = capsys.readouterr().out
        assert "learning rate 0.0003" in said and "resumed" not in said
        assert run.control()["paused"] is True and run.control()["learning_rate"]["peak"] == 3e-4
        assert main(["control", "run", "--go-on", "--json"]) == 0 and run.control()["paused"] is False
    capsys.readouterr()
    assert main(["control", "run", "--pin", "a dog", "--learning-rate", "2e-4"]) == 0
    assert "it is not being trained, and acts once it is resumed" in capsys.readouterr().out
    for arguments, why in ((["run"], "give a change"), (["run", "--save"], "not being trained"),
                           (["run", "--pause"], "not being trained"),
                           (["none", "--save"], "no run"), (["run", "--learning-rate", "x"], "not a number"),
                           (["run", "--pause", "--go-on"], "not allowed")):  # fmt: skip
        assert main(["control", *arguments]) == 2
        err = capsys.readouterr().err
        assert why in err and err.count("\n") == 1


def test_a_partial_change_list_is_removed(text: Path) -> None:
    run = make("run", text, steps=2)
    (run.path / ".changes.json.abc.part").write_text("[")
    assert process.work(Worker(run)) == 0
    assert leftovers(run.path) == []


def test_a_stop_before_the_first_step_names_the_checkpoint_that_is_there(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make("run", text, steps=2)

    def stopped(worker: Worker) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(job, "train", stopped)
        assert process.work(Worker(run)) == 0
        assert run.status().message == "stopped before the first step"
    assert process.work(Worker(run)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(job, "train", stopped)
        assert process.work(Worker(run)) == 0  # resumed, then stopped while its inputs were loaded
        assert run.status().message == "saved at step 2"
