"""`tui-llm train`, `runs`, `stop` and `export`, as typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests import HANG
from tests.training.run_helpers import SMALL_SHAPE, losses, make, words
from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.training.plan import launch
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import learning_rate


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tui_llm", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_training_in_the_foreground(text: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = start("train", str(text), "--run", "r", *SMALL_SHAPE, "--steps", "20", "--eval-every", "10")
    out, err = process.communicate()
    assert process.returncode == 0 and err == ""
    assert out.startswith("7,680 parameters, 1,280 tokens, ")
    assert "step 20/20  loss " in out and "held out" in out and "tokens/s" in out and "finished" in out
    run = Run(home / "runs" / "r")
    assert [row[0] for row in losses(run)] == list(range(1, 21))

    other = tmp_path / "other.txt"
    other.write_text(words(80))
    code, out, err = said(capsys, "runs", "--json")
    (row,) = json.loads(out)["runs"]
    assert code == 0 and (row["name"], row["state"], row["step"], row["steps"]) == ("r", "finished", 20, 20)
    assert row["loss"] == losses(run)[-1][1]
    assert "r" in said(capsys, "runs")[1]

    for arguments, why in (
        (["train", str(text), "--run", "r", *SMALL_SHAPE], "a run 'r' already exists"),
        (["train", "--run", "r", "--resume", "--batch-size", "8", "--steps", "20"], "another batch size"),
        (
            ["train", "--run", "r", "--resume", "--dropout", "0.5"],
            "resume it without, begin a branch with it (--branch r --step K), or start a new run",
        ),
        (["train", "--run", "r", "--resume", "--layers", "7"], "another layers; resume it without, or start a new run"),
        (["train", str(other), "--run", "r", "--resume"], "another corpus"),
        (["train", "--run", "none", "--resume"], "no run 'none'"),
        (["stop", "r"], "not being trained"),
        (["export", "none", str(tmp_path / "x")], "no run"),
        *(
            ((["train", str(text), "--run", name, *SMALL_SHAPE]), "can't name a run")
            for name in ("../x", "", "a/b", "x" * 70)
        ),
    ):
        code, out, err = said(capsys, *arguments)
        assert (code, out) == (2, "") and why in err and err.count("\n") == 1, arguments

    # More steps: old metrics are kept, new steps follow the new schedule. Fewer than were made are refused.
    before = losses(run)
    code, _, err = said(capsys, "train", "--run", "r", "--resume", "--steps", "19")
    assert code == 2 and "continues from step 20; give more steps than that" in err
    out, _ = start("train", "--run", "r", "--resume", "--steps", "30").communicate()
    assert "30 steps instead of 20" in out and "finished" in out
    settings = run.config().settings
    assert settings.steps == 30 and losses(run)[:20] == before
    assert [row[2] for row in losses(run)[20:]] == [learning_rate(settings, step) for step in range(21, 31)]

    code, out, _ = said(capsys, "export", "r", str(tmp_path / "made"), "--dtype", "bfloat16")
    assert code == 0 and "at step 30" in out
    assert sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tmp_path / "made").parameters()) > 0


def test_json_lines_ctrl_c_and_resume(
    text: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--steps", "1000000", "--eval-every", "1000000", "--checkpoint-every", "1000000"]
    process = start("train", str(text), "--run", "r", *SMALL_SHAPE, *options, "--json")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first["step"] == 1 and {"loss", "lr", "grad_norm", "tokens_per_second", "val_loss"} <= first.keys()
    process.send_signal(signal.SIGINT)
    out = process.stdout.read()  # communicate() would miss the lines that readline() has buffered
    _, err = process.communicate()
    rows = [first, *(json.loads(row) for row in out.splitlines())]
    assert process.returncode == 0 and "saving" in err and "Traceback" not in err
    assert rows[-1] == {"run": "r", "state": "stopped", "step": rows[-2]["step"]}
    assert [row["step"] for row in rows[:-1]] == list(range(1, len(rows)))  # no line is lost
    assert Run(home / "runs" / "r").checkpoints()[-1][0] == rows[-1]["step"]

    # Resumed and detached, then stopped by another command.
    done = start("train", "--run", "r", "--resume", "--detach", "--json")
    out, err = done.communicate()
    assert done.returncode == 0 and json.loads(out)["alive"] is True and err == ""
    again = start("train", "--run", "r", "--resume")
    assert (again.communicate()[1], again.returncode) == (
        "tui-llm: run r is being trained; stop it first (tui-llm stop r)\n",
        2,
    )
    # Here, for its limit of time: the worker has only its lock yet, and may not begin within a minute.
    monkeypatch.setattr(launch.wait_until_gone, "__defaults__", (HANG,))
    code, out, _ = said(capsys, "stop", "r", "--json")
    assert code == 0 and json.loads(out)["state"] == "stopped" and json.loads(out)["step"] >= rows[-1]["step"]
    assert not Run(home / "runs" / "r").alive()


@pytest.mark.parametrize(
    ("text", "why"),
    [("hi", "too small: 3 tokens"), ("so little", "too small: 10 tokens"), (" \n\n\n", "is empty"), ("once upon a time " * 40, "too small")],
)  # fmt: skip
def test_a_corpus_that_is_too_small_makes_no_run(
    text: str, why: str, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.txt"
    small.write_text(text)
    vocabulary = ["--tokenizer", "nano"] if len(text) > 99 else []  # enough bytes, but too few of nano's tokens
    for more in (["--detach"], ["--no-start"], []):
        assert main(["train", str(small), "--run", "r", *SMALL_SHAPE, *vocabulary, *more]) == 2
        err = capsys.readouterr().err
        assert why in err and err.count("\n") == 1 and not (home / "runs" / "r").exists()


def test_the_bytes_bound_the_tokens_where_no_vocabulary_is_at_hand(tmp_path: Path) -> None:
    small = tmp_path / "small.txt"
    for text in ("hi", "<|endoftext|>" * 400, "a" * 320):
        small.write_text(text)
        with pytest.raises(UserError, match=r"is empty|too small: at most"):
            make("r", small)


def test_a_run_that_died_can_be_shortened(text: Path, home: Path) -> None:
    """It continues from its last checkpoint to the new number of steps, on the new schedule, and finishes."""
    options = ["--steps", "1000", "--eval-every", "10", "--checkpoint-every", "5"]
    process = start("train", str(text), "--run", "r", *SMALL_SHAPE, *options, "--json")
    run = Run(home / "runs" / "r")
    assert process.stdout is not None
    while json.loads(process.stdout.readline())["step"] < 12:
        pass
    os.kill(int((run.path / "pid").read_text()), signal.SIGKILL)
    process.communicate()
    kept = run.checkpoints()[-1][0]
    out, err = start("train", "--run", "r", "--resume", "--steps", str(kept + 3)).communicate()
    assert f"{kept + 3:,} steps instead of 1,000" in out and "finished" in out, err
    settings = run.config().settings
    assert settings.steps == kept + 3 and run.checkpoints()[-1][0] == kept + 3
    rates = [row[2] for row in losses(run)[kept:]]
    assert rates == [learning_rate(settings, step) for step in range(kept + 1, kept + 4)]
