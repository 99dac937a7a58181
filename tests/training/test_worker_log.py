"""The worker's log in bounded memory: what the windows return is what splitting the whole file returns."""

from __future__ import annotations

import itertools
import os
import random
import tracemalloc
from pathlib import Path

import pytest

from tui_llm.training.run import worker_log
from tui_llm.training.run.worker_log import LogLine, WorkerLog


@pytest.fixture(params=[7, 64, 1 << 18], ids=lambda block: f"blocks of {block}")
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(worker_log, "BLOCK", request.param)
    return int(request.param)


def split(data: bytes) -> list[LogLine]:
    """The reference: the file as a whole."""
    found, at = [], 0
    for line in data.split(b"\n"):
        end = min(len(data), at + len(line) + 1)
        if end > at:
            found.append(LogLine(at, end, line.decode("utf-8", "replace")))
        at = end
    return found


def some(seed: int) -> bytes:
    draw = random.Random(seed)
    lines = [bytes(draw.choices(b"ab \xff\xc3\xa9\r\x1b\x00", k=draw.choice((0, 0, 1, 5, 40)))) for _ in range(60)]
    return b"\n".join(lines) + (b"\n" if seed % 2 else b"")


@pytest.mark.parametrize("seed", range(6))
def test_windows_are_those_of_the_whole_file(tmp_path: Path, small: int, seed: int) -> None:
    data = some(seed)
    path = tmp_path / "worker.log"
    path.write_bytes(data)
    log, whole = WorkerLog(path), split(data)
    assert log.after(0, 1000) == whole == log.before(len(data), 1000)
    for i, line in enumerate(whole):
        assert log.after(line.offset, 3) == whole[i : i + 3]
        assert log.before(line.offset, 3) == whole[max(0, i - 3) : i]
    with_words = [line for line in whole if "ab" in line.text]
    assert log.after(0, 1000, "AB") == with_words == log.before(len(data), 1000, "aB")


def test_a_line_without_an_end_is_cut_into_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_log, "BLOCK", 64)
    monkeypatch.setattr(worker_log, "LONGEST", 100)
    path = tmp_path / "worker.log"
    path.write_bytes(b"begin\n" + b"x" * 1000 + b"\nend\n")
    forward, backward = WorkerLog(path).after(0, 100), WorkerLog(path).before(1 << 40, 100)
    for found in (forward, backward):
        assert "".join(line.text for line in found) == "begin" + "x" * 1000 + "end"
        assert max(len(line.text) for line in found) <= 100
        assert all(a.end == b.offset for a, b in itertools.pairwise(found))


def test_gigabytes_need_little_memory(tmp_path: Path) -> None:
    """A sparse file: one line of zeros, 3 GB long, between others."""
    path = tmp_path / "worker.log"
    path.write_bytes(b"first\n")
    os.truncate(path, 3 << 30)
    with path.open("ab") as file:
        file.write(b"\nlast but one\nlast")
    log = WorkerLog(path)
    tracemalloc.start()
    assert [line.text for line in log.before(log.size(), 2)] == ["last but one", "last"]
    assert len(log.before(log.size(), 40)) == 40 and len(log.after(0, 40)) == 40
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_search_ends_when_nobody_waits(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_bytes(b"a line\n" * 200_000)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    assert WorkerLog(path, stop).after(0, 1, "not there") == [] and len(asked) == 3
    assert WorkerLog(tmp_path / "none").before(100, 5) == [] and WorkerLog(tmp_path / "none").size() == 0
    with pytest.raises(OSError, match="regular"):
        WorkerLog(tmp_path).size()
