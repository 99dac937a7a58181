"""What leads to a checkpoint is on the disk before it: a power cut leaves no checkpoint whose log lines are missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mutations import forked
from tests.training.run_helpers import make, words
from tui_llm.common import storage
from tui_llm.facts.pin import Pin
from tui_llm.training.run import jsonl, pins
from tui_llm.training.worker import process


class Recorder:
    """The calls that write, in their order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def step(self, call: str, path: str) -> None:
        self.calls.append((call, path))

    def write(self, path: str, data: Any, put: Any) -> Any:
        self.calls.append(("write", path))
        return put(data)

    def library(self, path: str, write: Any) -> None:
        write()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and reads /proc")
def test_every_log_is_flushed_before_a_checkpoint_gets_its_name(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(words(800))
    run = make("run", tmp_path / "text.txt", steps=6, checkpoint_every=3, eval_every=3)
    pins.write(run.pins_path, [Pin("the cat", " sat")])

    def recorded() -> int:
        recorder = Recorder()
        storage.faults = recorder
        code = process.main([str(run.path)])
        (tmp_path / "calls.json").write_text(json.dumps(recorder.calls))
        return code

    ending = forked.run(recorded)
    assert ending.code == 0, ending
    unflushed: set[str] = set()
    flushed: set[str] = set()
    named = []
    for call, path in json.loads((tmp_path / "calls.json").read_text()):
        where = Path(path)
        if where.parent == run.path and where.name in jsonl.GROWING:
            if call == "write":
                unflushed.add(where.name)
            elif call == "fsync":
                unflushed.discard(where.name)
                flushed.add(where.name)
        elif call in ("rename", "replace") and where.parent == run.path and where.name.startswith("checkpoint-"):
            named.append(where.name)
            assert unflushed == set(), where.name
    assert named == ["checkpoint-3", "checkpoint-6"]
    assert {"metrics.jsonl", "samples.jsonl", "probes.jsonl", "heads.jsonl"} <= flushed
