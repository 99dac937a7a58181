"""`tui-llm runs rename`, `delete` and `compare`, `export`, and several corpora for one run, as typed."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from tests.training.run_helpers import SMALL_SHAPE, make, words
from tui_llm.cli import main
from tui_llm.training.run.compare import compare, table
from tui_llm.training.run.config import RunConfig
from tui_llm.training.run.foreign.foreign_run import open_path
from tui_llm.training.run.run import Run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def wrote(run: Run, rows: list[tuple[int, float, float | None]]) -> None:
    run.metrics_path.write_bytes(
        b"".join(
            json.dumps({"step": step, "loss": loss, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": 100.0 * step,
                        "val_loss": val_loss}).encode() + b"\n"
            for step, loss, val_loss in rows
        )
    )  # fmt: skip


def test_rename(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = make("one", text), make("two", text)
    (other.path.parent / "empty").mkdir()
    (other.path.parent / "gone").symlink_to("nowhere")
    (other.path.parent / "full").mkdir()
    (other.path.parent / "full" / "file").touch()
    for name in ("two", "full", "gone"):
        code, out, err = said(capsys, "runs", "rename", "one", name)
        assert (code, out) == (2, "") and "already" in err and err.count("\n") == 1
    for name in ("../x", "a/b", "", ".", "[/]", "\x1b[31m", "x" * 65):
        code, out, err = said(capsys, "runs", "rename", "one", name)
        assert (code, out) == (2, "") and "can't name a run" in err and "\x1b" not in err
    assert "no run 'none'" in said(capsys, "runs", "rename", "none", "x")[2]
    # an empty folder, as left by a rename that was killed
    assert said(capsys, "runs", "rename", "two", "empty")[0] == 0
    with run.held(1):
        assert "being trained; stop it first" in said(capsys, "runs", "rename", "one", "three")[2]
    run.write_status("starting")  # a worker that has not acquired its lock yet
    assert "being trained; stop it first" in said(capsys, "runs", "rename", "one", "three")[2]
    run.write_status("stopped")
    code, out, _ = said(capsys, "runs", "--json", "rename", "one", "three")
    assert code == 0 and json.loads(out) == {"run": "three", "before": "one", "path": str(run.path.with_name("three"))}
    assert not run.path.exists() and Run(run.path.with_name("three")).config().corpus == (str(text),)


def test_delete_asks_or_requires_yes(
    text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make("one", text)
    code, _, err = said(capsys, "runs", "delete", "one")  # no terminal for the question
    assert code == 2 and "add --yes" in err and run.exists()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for answer in ("", "n\n", "no\n", "\n"):
        monkeypatch.setattr("sys.stdin.readline", lambda answer=answer: answer, raising=False)
        code, _, err = said(capsys, "runs", "delete", "one")
        assert code == 2 and "[y/N]" in err and "is not deleted" in err and run.exists()
    with run.held(1):
        assert "stop it first" in said(capsys, "runs", "delete", "one", "--yes")[2]
    monkeypatch.setattr("sys.stdin.readline", lambda: "y\n", raising=False)
    assert said(capsys, "runs", "delete", "one", "--json")[1] == '{"run": "one", "deleted": true}\n'
    assert not run.path.exists()
    make("one", text)
    assert said(capsys, "runs", "delete", "one", "--yes")[0] == 0 and not run.path.exists()


def test_compare_prints_differing_settings_and_results(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = make("one", text), make("two", text, learning_rate=0.5, batch_size=8)
    wrote(one, [(1, 5.0, 5.5), (2, 4.0, 2.5), (3, 3.0, None), (4, 2.0, 2.75)])
    wrote(two, [(1, 5.0, None)])
    two.metrics_path.write_bytes(two.metrics_path.read_bytes() + b'damaged "val_loss": 1\n{"step": 2, "val_loss": 0.1')
    found = json.loads(said(capsys, "runs", "compare", "one", "two", "one", "--json")[1])
    first, second = found["runs"]
    assert (first["step"], first["steps"], first["tokens"]) == (4, 30, 4 * 4 * 16)
    assert (first["best_val_loss"], first["best_val_step"], first["last_val_loss"]) == (2.5, 2, 2.75)
    assert first["tokens_per_second"] == pytest.approx(4 / (1 / 100 + 1 / 200 + 1 / 300 + 1 / 400))
    assert (second["tokens"], second["best_val_loss"], second["tokens_per_second"]) == (8 * 16, None, 100.0)
    assert found["differing"] == {
        "batch_size": {"one": 4, "two": 8}, "learning_rate": {"one": 0.01, "two": 0.5}
    }  # fmt: skip
    out = said(capsys, "runs", "compare", "one", "two")[1]
    assert "best val loss" in out and "2.5000" in out and "learning rate" in out and "block size" not in out
    assert "two runs or more" in said(capsys, "runs", "compare", "one", "one")[2]
    assert "no run 'none'" in said(capsys, "runs", "compare", "one", "none")[2]


def test_a_damaged_run_is_compared_too(text: Path) -> None:
    one, two = make("one", text), make("two", text)
    (two.path / "config.json").write_text('{"\x1b[31m": 1}')
    rows = {row[0]: row[1:] for row in table(compare([one, two]))}
    assert rows["state"] == ("new", "failed") and rows["seed"] == ("1", "")


def test_a_log_of_another_program_differs_in_no_setting(text: Path, tmp_path: Path) -> None:
    one, two, log = make("one", text), make("two", text, seed=7), tmp_path / "train.log"
    log.write_text("iter 1: loss 4.0, time 12.00ms, mfu 1.00%\n")
    rows = {row[0]: row[1:] for row in table(compare([one, two, open_path(log)]))}
    assert rows["seed"] == ("1", "7", "") and "width" not in rows
    assert "seed" not in {row[0] for row in table(compare([one, open_path(log)]))}


def test_hostile_settings_are_displayed_safely(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = make("one", text), make("two", text, sample_prompt="\x1b[31m[/]\u202e")
    out = said(capsys, "runs", "compare", "one", "two")[1]
    assert "\x1b" not in out and "\u202e" not in out and "[/]" in out
    two.write_config(RunConfig(("/x/\x9b1m",), "toy", "cpu", dataclasses.replace(one.config().settings)))
    assert "\x9b" not in said(capsys, "runs", "compare", "one", "two")[1]


def test_several_corpora_train_one_model_and_export_never_overwrites(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = tmp_path / "folder" / "in" / "folder"
    deep.mkdir(parents=True)
    (deep / "deep.txt").write_text(words(1000, seed=2))
    options = [*SMALL_SHAPE, "--steps", "3", "--clip", "0.5", "--beta1", "0.8", "--warmup-steps", "2"]
    code = main(["train", str(text), str(tmp_path / "folder"), "python-reference", "--run", "r", *options])
    out, err = capsys.readouterr()
    assert code == 0, err
    line = out.splitlines()[0]
    assert all(word in line for word in ("parameters", "192 tokens", "operations", "of memory"))
    run = Run(tmp_path / "tui-llm-home" / "runs" / "r")
    config = run.config()
    assert config.corpus == (str(text), str(tmp_path / "folder"), "python-reference")
    assert (config.settings.clip, config.settings.beta1, config.settings.warmup_steps) == (0.5, 0.8, 2)
    texts = sum(len(path.read_bytes()) for path in (text, deep / "deep.txt"))
    status = json.loads((run.path / "status.json").read_text())
    assert status["train_tokens"] > texts and status["state"] == "finished"  # the language reference is included

    made, full, file = tmp_path / "made", tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "mine").write_text("mine")
    file.write_text("mine")
    for taken in (full, file):
        code, out, err = said(capsys, "export", "r", str(taken))
        assert (code, out) == (2, "") and "give another name" in err
    assert (full / "mine").read_text() == file.read_text() == "mine" and len(list(full.iterdir())) == 1
    made.mkdir()  # an empty folder is not a run
    assert said(capsys, "export", "r", str(made))[0] == 0 and (made / "model.safetensors").is_file()
    assert said(capsys, "export", "r", str(made))[0] == 2
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_a_long_message_in_the_list_of_runs_is_wrapped_on_a_terminal(
    text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is lost; for other programs a run is one line."""
    run = make("one", text)
    message = f"beside other programs its 2 threads waited for cores. {'One may be faster. ' * 10}"
    run.write_status("stopped", message=message)
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = said(capsys, "runs")[1].splitlines()
    assert len(lines) > 3 and all(len(line) <= 80 for line in lines)
    assert " ".join(message.split()) in " ".join(" ".join(lines).split())
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    (_, line) = said(capsys, "runs")[1].splitlines()
    assert " ".join(message.split()) in line
