"""The number of CPU threads of a run, and what is said where other processes use the cores that they need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests import HANG
from tests.training.run_helpers import SMALL_SHAPE, lines, make, words
from tui_llm.cli import main
from tui_llm.common.foreign_files import read_json
from tui_llm.llm.model import device
from tui_llm.training.plan import launch
from tui_llm.training.run.run import Run, find
from tui_llm.training.worker import contention, process, worker
from tui_llm.training.worker.contention import ContentionWatch


@pytest.fixture(autouse=True)
def same_threads_after() -> Iterator[None]:
    before = torch.get_num_threads(), device.most_threads()
    yield
    device.use_threads(before[1])
    torch.set_num_threads(before[0])


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


class Load:
    """As `RunLoad`, with the loads that a test gives, one for each window."""

    given: list[float | None] = []

    def contention(self) -> float | None:
        return self.given.pop(0)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    monkeypatch.setattr(contention, "RunLoad", Load)
    monkeypatch.setattr(contention, "WINDOW", 0.0)
    monkeypatch.setattr(Load, "given", given := [])
    return given


def test_threads_that_wait_for_a_core_are_said_until_they_no_longer_do(loads: list[float | None]) -> None:
    torch.set_num_threads(2)
    watch = ContentionWatch("tales")
    said = []
    for load in (1.0, 1.5, 4.0, 1.5, 5.0, 1.1, None, 1.3):
        loads.append(load)
        said.append((watch.changed(), bool(watch.line)))
    assert said == [
        (False, False), (False, False),  # a third of the time
        (True, True), (False, True), (False, True), (True, False), (False, False), (False, False),
    ]  # fmt: skip
    loads.append(4.0)
    assert watch.changed() and "2 threads waited for cores 75 % of the time" in watch.line
    assert watch.line.endswith("tui-llm train --resume --run tales --threads 1")


def test_one_thread_waits_for_no_other(loads: list[float | None]) -> None:
    torch.set_num_threads(1)
    watch = ContentionWatch("tales")
    loads.append(9.0)
    assert not watch.changed() and not watch.line


def test_nothing_is_read_before_a_window_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "WINDOW", HANG)
    watch = ContentionWatch("tales")
    watch._load = None  # type: ignore[assignment]
    assert not watch.changed()


def test_a_run_says_it_in_its_status_and_log_and_takes_it_back(
    text: Path, loads: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, str]] = []
    write = Run.write_status

    def written(self: Run, state: str, message: str = "", **more: object) -> None:
        said.append((state, message))
        write(self, state, message, **more)

    monkeypatch.setattr(Run, "write_status", written)
    loads += [1.0, 4.0, 4.0, 1.0]
    run = make("run", text, steps=4, threads=2)
    assert process.work(worker.Worker(run)) == 0 and not loads
    running = [message for state, message in said if state == "running"]
    (line,) = [message for message in running if message]
    assert "--run run --threads 1" in line and running[-1] == ""
    assert "--threads 1" not in run.status().message  # it has ended


def test_a_message_of_a_running_run_keeps_what_is_wrong(text: Path) -> None:
    one = worker.Worker(make("run", text))
    one.notice = "the cores are taken"
    one.report("running", "saved at step 3, as requested")
    assert one.run.facts()["message"] == "saved at step 3, as requested. the cores are taken"
    one.report("running", "")
    assert one.run.facts()["message"] == "the cores are taken"
    one.report("paused", "paused at step 3")
    assert one.run.facts()["message"] == "paused at step 3"


def test_a_worker_uses_as_many_threads_as_its_run_says(text: Path) -> None:
    run = make("run", text, steps=2, threads=2)
    assert process.work(worker.Worker(run)) == 0
    assert torch.get_num_threads() == device.most_threads() == read_json(run.path / "status.json")["threads"] == 2
    other = make("other", text, steps=2)  # 0: as torch has them
    assert process.work(worker.Worker(other)) == 0 and read_json(other.path / "status.json")["threads"] == 2


def test_a_resumed_run_may_have_another_number_of_threads(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(text), "--run", "r", *SMALL_SHAPE, "--steps", "4", "--threads", "2", "--no-start"]) == 0
    run = find("r")
    assert run.config().settings.threads == 2
    resume = ["train", "--resume", "--run", "r", "--no-start"]
    assert main(resume) == 0 and run.config().settings.threads == 2
    assert main([*resume, "--threads", "1"]) == 0 and run.config().settings.threads == 1
    with run.held(1):
        assert main([*resume, "--threads", "2"]) == 2 and run.config().settings.threads == 1
    capsys.readouterr()
    assert main([*resume, "--threads", "-1"]) == 2 and "threads" in capsys.readouterr().err
    launch.change_execution(run, {"threads": 2, "steps": 9})  # the steps are not of how a run is executed
    assert (run.config().settings.threads, run.config().settings.steps) == (2, 4)
    assert process.work(worker.Worker(run)) == 0 and len(lines(run.metrics_path)) == 4
