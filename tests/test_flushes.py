"""What is written reaches the disk before it gets its name, and the name after it.

The other tests don't notice a missing fsync: they kill processes, not the machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault_scenarios import SCENARIOS
from tests.faults import Plan, Trial
from tests.flushes import unflushed
from tui_llm.common import files, storage
from tui_llm.training.plan import start
from tui_llm.training.worker import checkpoints


def calls_of(act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    plan = Plan()
    with monkeypatch.context() as patched:
        patched.setattr(storage, "faults", plan)
        act()
    return plan.calls


def place(calls: list[str], start: str, end: str = "", after: int = -1) -> int:
    """The number of the first call after `after` that begins and ends so; fails if there is none."""
    for number, call in enumerate(calls):
        if number > after and call.startswith(start) and call.split(" from ")[0].endswith(end):
            return number
    pytest.fail(f"no call {start} … {end} after number {after} of {calls}")


def test_a_file_is_flushed_then_renamed_then_its_folder_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    calls = calls_of(lambda: files.write_bytes(path, b"data"), monkeypatch)
    written = place(calls, "write /", ".part/a.bin")
    flushed = place(calls, "fsync /", ".part/a.bin", after=written)
    renamed = place(calls, f"replace {path} from ", after=flushed)
    assert place(calls, f"fsync folder {tmp_path}", after=renamed) > renamed
    assert unflushed(calls, str(tmp_path)) == []


def test_a_new_folder_is_flushed_with_all_that_it_contains_then_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(part: Path) -> None:
        storage.write_bytes(part / "one", b"1")
        storage.mkdir(part / "inside")
        storage.write_bytes(part / "inside" / "two", b"2")

    calls = calls_of(lambda: files.write_folder(tmp_path / "new", fill), monkeypatch)
    assert unflushed(calls, str(tmp_path)) == []
    renamed = place(calls, "rename /", "/new")
    for name in (
        ("fsync /", "/one"),
        ("fsync /", "/inside/two"),
        ("fsync folder /", "/inside"),
        ("fsync folder /", "/new"),
    ):
        assert place(calls, *name) < renamed
    assert place(calls, f"fsync folder {tmp_path}", after=renamed) > renamed


def test_the_metrics_and_each_file_of_a_checkpoint_are_flushed_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        checkpoints, "template_text", lambda _: "{{ messages }}"
    )  # as of a model that the run started from
    trial = Trial(SCENARIOS["run"], tmp_path / "trial")
    run = f"{trial.home}/runs/run"
    before = -1
    for step in (2, 4, 6):
        renamed = place(trial.calls, f"replace {run}/checkpoint-{step} from ")
        logged = [n for n, call in enumerate(trial.calls[:renamed]) if call == f"write {run}/metrics.jsonl"]
        assert before < logged[-1] < place(trial.calls, f"fsync {run}/metrics.jsonl", after=logged[-1]) < renamed
        for name in ("model.safetensors", "optimizer.safetensors", "training.json", start.CHAT):
            assert before < place(trial.calls, f"fsync {run}/.checkpoint-{step}.part/", f"/{name}") < renamed
        before = renamed
        assert trial.calls[renamed + 1] == f"fsync folder {run}"
    assert trial.unflushed == []


@pytest.mark.parametrize("name", ["sync", "sync_path", "sync_folder"])
def test_what_flushes_calls_fsync_on_that_very_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path if name == "sync_folder" else tmp_path / "file"
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append((os.fstat(file).st_ino, os.fstat(file).st_size)))
    if name == "sync":
        with storage.open_file(path, "wb") as file:
            file.write(b"data")
            storage.sync(file)  # with what is still in the buffer
    else:
        if path != tmp_path:
            path.write_bytes(b"data")
        getattr(storage, name)(path)
    assert seen == [(path.stat().st_ino, path.stat().st_size)]


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        (["write /h/.a.part/x", "replace /h/x from /h/.a.part/x", "fsync folder /h"], "x is not flushed before"),
        (["write /h/.a.part/x", "fsync /h/.a.part/x", "replace /h/x from /h/.a.part/x"], "the folder /home is not"),
        (
            ["mkdir /h/.a.part", "open /h/.a.part/n/x", "fsync /h/.a.part/n/x", "rename /h/n from /h/.a.part/n"],
            "/home/.a.part/n is not flushed before rename /home/n",
        ),
        (["write /h/m.jsonl", "replace /h/checkpoint-2 from /h/.checkpoint-2.part"], "to which it leads"),
        (["write /h/m.jsonl"], "m.jsonl is never flushed"),
    ],
)
def test_the_check_sees_what_is_missing(calls: list[str], said: str) -> None:
    assert any(said in line for line in unflushed(calls, "/h")), unflushed(calls, "/h")
