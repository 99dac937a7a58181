"""Any kind of file in place of a run's files: that run's problem is one line, and the other runs are shown."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.run_helpers import make, words, work
from tui_llm import cli
from tui_llm.training.plan import launch
from tui_llm.training.run.pins_snapshot import PinsReader
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import RunReader
from tui_llm.tui.runs.run_rows import RowReader, cells

DEEP = b"[" * 5000 + b"]" * 5000
STRANGE = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1",
    "9" * 400,
    str(2**63),
    '"5"',
    '"x"',
    "true",
    "null",
    "[]",
    "{}",
    '""',
)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("x")


def _sparse(size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.touch()
        os.truncate(path, size)

    return make


def _bytes(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


KINDS: dict[str, Callable[[Path], None]] = {
    "a fifo": _fifo,
    "a directory": _directory,
    "a link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "20 GB of nothing": _sparse(20 << 30),
    "a line of 20 MB": _sparse(20 << 20),  # longer than any line, and any file but those of lines, may be
    "NULs": _bytes(bytes(5000)),
    "nothing": _bytes(b""),
    "UTF-16": _bytes('{"step": 1, "loss": 1}\n'.encode("utf-16")),
    "Latin-1": _bytes(b'{"step": 1, "message": "\xe9"}\n'),
    "deep": _bytes(DEEP + b"\n"),
    "deep inside": _bytes(
        b'{"step": 1, "probes": ' + DEEP + b', "settings": ' + DEEP + b', "message": ' + DEEP + b"}\n"
    ),
    "a list": _bytes(b"[1, 2]\n"),
    "a number": _bytes(b"1e999\n"),
}
FILES = ("metrics.jsonl", "matrices.jsonl", "probes.jsonl", "samples.jsonl", "config.json", "control.json", "status.json", "pins.json",
         "batch.json", "changes.json", "corpus.json", "lock", "pid", "worker.log")  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a stopped run with all its files."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("trained")
        patch.setenv("TUI_LLM_HOME", str(folder))
        (folder / "text.txt").write_text(words(2000))
        run = make("bad", folder / "text.txt", steps=20, checkpoint_every=10, eval_every=5)
        (run.path / "pins.json").write_text('{"pins": [{"prompt": "the", "target": " cat"}]}')
        assert work(run) == 0
        run.write_control(paused=False)
        run.write_status("stopped", "saved")
        return run.path


@pytest.fixture
def bad(trained: Path, home: Path) -> Run:
    """A run to damage, next to an intact one."""
    for name in ("bad", "good"):
        shutil.copytree(trained, home / "runs" / name)
    return Run(home / "runs" / "bad")


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts no worker: requests are written, but no process is started."""

    class Process:
        pid = 0  # no process

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(launch, "_children", [])
    monkeypatch.setattr(launch.subprocess, "Popen", lambda *_, **__: Process())
    monkeypatch.setattr(launch, "reap", lambda: None)
    monkeypatch.setattr(launch, "wait_until_gone", lambda run: True)
    monkeypatch.setattr(launch, "wait_until_held", lambda run: True)


COMMANDS = (
    ("runs",),
    ("runs", "compare", "good", "bad"),
    ("runs", "compare", "good", "bad", "--json"),
    ("runs", "curves", "bad", "good", "--json"),
    ("runs", "curves", "bad", "--chart", "update.q", "--by", "tokens", "--json"),
    ("runs", "curves", "bad", "--chart", "loss", "--by", "time"),
    ("probes", "bad"),
    ("probes", "bad", "--json"),
    ("probes", "bad", "--between", "0", "20"),
    ("export", "bad", "{out}"),
    ("train", "--resume", "--run", "bad", "--detach"),
    ("train", "--resume", "--run", "bad", "--steps", "30", "--no-start"),
    ("stop", "bad"),
    ("control", "bad", "--pause"),
    ("control", "bad", "--pin", "a dog"),
    ("control", "bad", "--learning-rate", "1e-3"),
    ("batch", "bad"),
    ("samples", "bad"),
)


def strictly(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def check(bad: Run, capsys: pytest.CaptureFixture[str], commands: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    """Returns what `runs --json` says about the damaged run. Each command must succeed or print one line."""
    assert cli.main(["runs", "--json"]) == 0
    rows = {row["name"]: row for row in strictly(capsys.readouterr().out)["runs"]}
    assert set(rows) == {"bad", "good"}
    assert rows["good"]["problem"] is None and rows["good"]["state"] == "stopped" and rows["good"]["step"] == 20
    for command in commands:
        code = cli.main([word.format(out=bad.path.parent.parent / "out") for word in command])
        said = capsys.readouterr()
        assert code in (0, 2), (command, code, said)
        assert "Traceback" not in said.err and said.err.count("\n") <= (1 if code else 3), (command, said.err)
        if code == 0 and "--json" in command:
            strictly(said.out)
    shutil.rmtree(bad.path.parent.parent / "out", ignore_errors=True)
    reader = RunReader(bad)
    snapshot = reader.read()
    while snapshot.reading:
        snapshot = reader.read()
    assert "\n" not in snapshot.status.summary and all(math.isfinite(loss) for _, loss in snapshot.train)
    assert "\n" not in PinsReader(bad).read().problem
    for row in map(RowReader().read, (bad, Run(bad.path.with_name("good")))):
        assert all("\n" not in cell.plain for cell in cells(row))
        assert (row.losses and not row.problem) or row.name == "bad"
    return rows["bad"]


@pytest.mark.parametrize("name", FILES)
def test_any_kind_of_file_in_place_of_a_run_file_is_one_line(
    name: str, bad: Run, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(name)
    for kind, put in KINDS.items():
        shutil.rmtree(bad.path)
        shutil.copytree(trained, bad.path)
        path = bad.path / name
        path.unlink(missing_ok=True)
        put(path)
        row = check(bad, capsys, tuple(draw.sample(COMMANDS, 4)))
        if kind in ("a fifo", "a directory", "a link to an endless device", "20 GB of nothing") and name in (
            "metrics.jsonl", "matrices.jsonl", "probes.jsonl", "samples.jsonl", "config.json", "control.json", "status.json",
        ):  # fmt: skip
            said = row["problem"]
            assert said and "\n" not in said and ("regular file" in said or "bytes" in said), (kind, row)


def test_any_value_in_place_of_a_number_in_status(bad: Run, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(5)
    for name in ("config.json", "status.json", "control.json", "batch.json", "corpus.json"):
        whole = json.loads((trained / name).read_text())
        places: list[tuple[Any, Any, str]] = []
        _places(whole, places)
        for at, (parent, key, _) in enumerate(draw.sample(places, min(12, len(places)))):
            kept = parent[key]
            parent[key] = "\0here"
            text = json.dumps(whole).replace('"\\u0000here"', STRANGE[(at + len(name)) % len(STRANGE)])
            parent[key] = kept
            (bad.path / name).write_text(text)
            check(bad, capsys, tuple(draw.sample(COMMANDS, 2)))
        shutil.copy(trained / name, bad.path / name)


def _places(value: Any, found: list[tuple[Any, Any, str]], path: str = "") -> None:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found.append((value, key, f"{path}/{key}"))
        _places(value[key], found, f"{path}/{key}")


@pytest.mark.parametrize("name", ["metrics.jsonl", "matrices.jsonl", "probes.jsonl", "samples.jsonl"])
def test_any_value_in_place_of_a_number_in_metrics(
    name: str, bad: Run, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, data = random.Random(name), (trained / name).read_text()
    whole = json.loads(data.splitlines()[-1])
    places: list[tuple[Any, Any, str]] = []
    _places(whole, places)
    for at, strange in enumerate(STRANGE):
        parent, key, _ = places[at] if at < len(places) and name == "metrics.jsonl" else draw.choice(places)
        kept, parent[key] = parent[key], "\0here"
        line = json.dumps(whole).replace('"\\u0000here"', strange)
        parent[key] = kept
        (bad.path / name).write_text(data + line + "\n")
        check(bad, capsys, tuple(draw.sample(COMMANDS, 3)))


def test_non_finite_numbers_become_null_and_are_reported(bad: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with bad.metrics_path.open("a") as file:
        file.write(
            '{"step": 21, "loss": NaN, "lr": Infinity, "grad_norm": 1, "tokens_per_second": 1, "val_loss": NaN}\n'
        )
    row = check(bad, capsys, COMMANDS)
    assert (row["step"], row["loss"]) == (21, None) and "finite" in row["problem"]
    assert cli.main(["runs"]) == 0
    assert "finite" in capsys.readouterr().out


def test_decreasing_and_negative_steps(bad: Run, capsys: pytest.CaptureFixture[str]) -> None:
    lines = bad.metrics_path.read_text().splitlines(keepends=True)
    bad.metrics_path.write_text("".join([*lines[::-1], lines[5], lines[5].replace('"step": 6', '"step": -6')]))
    assert check(bad, capsys, COMMANDS)["step"] == 6
