"""TensorBoard event files, read by TensorBoard's own reader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.run_helpers import lines, make, words, work
from tui_llm.cli import main
from tui_llm.training.plan import launch
from tui_llm.training.run.settings import from_fields
from tui_llm.training.worker import tensorboard
from tui_llm.training.worker.tensorboard import TAGS

reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="extra `tensorboard`")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = reader.EventAccumulator(str(folder), size_guidance={reader.SCALARS: 0})
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def check(folder: Path, metrics: Path) -> None:
    """Checks that the events equal the metrics: each step once, in order."""
    found, logged = events(folder), lines(metrics)
    for name, tag in TAGS.items():
        expected = [(line["step"], line[name]) for line in logged if name in line]
        assert [step for step, _ in found.get(tag, [])] == [step for step, _ in expected], tag
        assert [value for _, value in found.get(tag, [])] == pytest.approx([value for _, value in expected], rel=1e-6)


def test_a_killed_and_resumed_run_has_each_step_once(text: Path) -> None:
    run = launch.create("run", [str(text)], make("other", text, steps=20).config().settings, preset="toy", device="cpu",
                        tensorboard=True)  # fmt: skip
    assert work(run, ("half a line", 18)) == -9  # in the line of step 16, after the checkpoint of step 14
    folder = run.path / "tensorboard"
    (event_file,) = folder.iterdir()
    with event_file.open("ab") as file:
        file.write(b"\x18\x00\x00\x00\x00\x00\x00\x00half a record")
    assert work(run) == 0 and run.status().state == "finished"
    check(folder, run.metrics_path)
    assert len(lines(run.metrics_path)) == 20 and "loss/validation" in events(folder)


def test_later_event_files_supersede_earlier_ones(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a run is resumed later, TensorBoard's purge drops the events after the checkpoint."""
    run = make("run", text, steps=6)
    assert work(run) == 0
    folder, now = run.path / "tensorboard", 1_000_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    first = tensorboard.begin(run, 0)
    for step in range(1, 9):
        first.add({"step": step, "time": now, "loss": 9.0, "lr": 0.1})
    first.close()
    now += 5
    second = tensorboard.begin(run, 4)
    for step in range(5, 8):
        second.add({"step": step, "time": now, "loss": 1.0, "lr": 0.1})
    second.close()
    assert len(list(folder.iterdir())) == 2
    assert events(folder)["loss/training"] == [(step, 9.0 if step < 5 else 1.0) for step in range(1, 8)]
    now -= 100  # the clock was set back: the events are written again from the metrics
    monkeypatch.setattr(tensorboard.time, "sleep", lambda _: None)
    clock = iter(range(int(now), int(now) + 1000))
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    tensorboard.begin(run, 6).close()
    check(folder, run.metrics_path)


def test_event_files_requested_during_a_run_contain_all_of_it(text: Path) -> None:
    run = make("run", text, steps=4)
    assert work(run) == 0
    assert not (run.path / "tensorboard").exists()
    launch.enable_tensorboard(run)
    launch.set_steps(run, 7)
    assert run.config().tensorboard and work(run) == 0
    assert len(lines(run.metrics_path)) == 7
    check(run.path / "tensorboard", run.metrics_path)


def test_an_export_of_a_damaged_file(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make("run", text, steps=4)
    assert main(["export", "run", str(tmp_path / "events"), "--tensorboard"]) == 2
    assert "wait for its first step" in capsys.readouterr().err
    assert work(run) == 0
    whole = run.metrics_path.read_bytes()
    damage = [b"\xff\xfe", b"[]", b"7", b'{"step": 1}', b'{"step": 1, "time": 1, "loss": []}', b"[" * 5000]
    run.metrics_path.write_bytes(b"\n".join(damage) + b"\n" + whole + b'{"step": 9, "ti')
    out = tmp_path / "events"
    assert main(["export", "run", str(out), "--tensorboard"]) == 0
    assert capsys.readouterr().out.startswith("4 steps of run run exported as event files to ")
    run.metrics_path.write_bytes(whole)
    check(out, run.metrics_path)
    assert main(["export", "run", str(out), "--tensorboard"]) == 2
    assert "already has event files" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(
    text: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tui_llm.training.worker import process, worker

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert main(["train", str(text), "--run", "r", "--preset", "toy", "--tensorboard"]) == 2
    assert "pip install 'tui-llm[tensorboard]'" in capsys.readouterr().err and not (home / "runs" / "r").exists()
    run = make("run", text, steps=2)
    launch.enable_tensorboard(run)
    said: list[str] = []
    monkeypatch.setattr(worker, "log", said.append)
    assert process.work(worker.Worker(run)) == 0  # the run does not fail
    assert any("no event files" in line and "pip install" in line for line in said)


def test_old_configs_request_no_event_files(text: Path) -> None:
    run = make("run", text)
    raw = json.loads((run.path / "config.json").read_text())
    del raw["tensorboard"], raw["settings"]["compile"]
    (run.path / "config.json").write_text(json.dumps(raw))
    assert not run.config().tensorboard and run.config().settings == from_fields({}, run.config().settings)
