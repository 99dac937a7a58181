"""The checks of `faults.py` see a worker that is wrong: each test breaks one promise, and an attempt says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.fault_scenarios import SCENARIOS
from tests.faults import Trial
from tui_llm.common.errors import UserError
from tui_llm.training.run import jsonl
from tui_llm.training.worker import checkpoints
from tui_llm.training.worker.job import Job


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return Trial(SCENARIOS["run"], tmp_path_factory.mktemp("faults") / "run")


def call(trial: Trial, start: str, *, end: str = "", number: int = 0) -> int:
    """The number k of a call that begins and ends so: the first one, or a later one."""
    found = [k for k, line in enumerate(trial.calls, 1) if line.startswith(start) and line.endswith(end)]
    return found[number]


def of_metrics(trial: Trial, step: int) -> int:
    return call(trial, "write ", end="/run/metrics.jsonl", number=step - 1)


def test_an_error_that_is_no_message_is_seen_in_the_log(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    append = jsonl.append

    def wrong(file: BinaryIO, value: dict[str, Any]) -> None:
        try:
            append(file, value)
        except OSError as error:
            raise TypeError("not a message") from error

    monkeypatch.setattr(jsonl, "append", wrong)
    assert any("a traceback" in line for line in trial.attempt(of_metrics(trial, 5), "error"))


def test_a_last_checkpoint_that_is_not_saved_is_seen_before_the_next_worker_saves_it(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Job.save

    def silent(self: Job, step: int) -> None:
        try:
            save(self, step)
        except UserError:
            self.saved = step

    monkeypatch.setattr(Job, "save", silent)
    k = call(trial, "fsync ", end="/model.safetensors", number=2)
    found = trial.attempt(k, "error")
    assert any("it ended well, but not all is there" in line and "checkpoint-6" in line for line in found), found


def test_a_worker_that_begins_anew_is_seen(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "load_newest", lambda *_, **__: None)
    found = trial.attempt(of_metrics(trial, 5), "kill")
    assert [line.partition(": ")[2] for line in found] == ["step 1 was computed again, though checkpoint-4 was intact"]


def test_old_checkpoints_that_are_deleted_before_the_new_one_is_whole_are_seen(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoints._write

    def wrong(run: Any, *more: Any) -> None:
        for _, old in run.checkpoints()[:-1]:
            checkpoints._drop(old)
        write(run, *more)

    monkeypatch.setattr(checkpoints, "_write", wrong)
    found = trial.attempt(call(trial, "replace ", end="/.checkpoint-6.part"), "kill")
    assert any("checkpoint-2 of run run is lost" in line for line in found), found


def test_a_right_worker_passes(trial: Trial, tmp_path: Path) -> None:
    assert trial.attempt(of_metrics(trial, 5), "kill") == trial.unflushed == []
