"""A run that is killed at any point and resumed ends like an undisturbed one."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.run_helpers import TINY, contents, leftovers, lines, losses, make, words, work
from tui_llm.cli import main
from tui_llm.llm.model import native_training
from tui_llm.training.plan import launch

# With dropout and gradient accumulation, whose random numbers and batches must be restored.
HARD = {"dropout": 0.1, "grad_accumulation_steps": 2, "steps": 40}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def test_a_run_killed_at_every_point_ends_as_an_uninterrupted_one(text: Path) -> None:
    unbroken = make("unbroken", text, **HARD)
    assert work(unbroken) == 0, unbroken.log_path.read_text()

    broken = make("broken", text, **HARD)
    moments = [
        ("half a line", 2),  # before the first checkpoint
        ("half the weights", 1),  # of the first checkpoint: step 7
        ("half the weights", 4),  # the optimizer's state of the second checkpoint
        ("around the rename", 1),
        ("around the rename", 2),
        ("half a line", 8),
        ("half deleted", 1),
    ]
    for moment in moments:
        assert work(broken, moment) == -9, broken.log_path.read_text()
        assert broken.status().state == "died"
        for step, folder in broken.checkpoints():
            assert len(contents(folder)) == len(contents(unbroken.checkpoints()[-1][1])), (moment, step)
    assert work(broken) == 0, broken.log_path.read_text()

    assert broken.status().state == "finished" and broken.status().step == 40
    assert losses(broken) == losses(unbroken)
    assert [m[0] for m in losses(broken)] == list(range(1, 41))
    assert [m[0] for m in losses(broken) if m[4] is not None] == [1, 10, 20, 30, 40]
    assert lines(broken.samples_path) == lines(unbroken.samples_path)
    assert lines(broken.matrices_path) == lines(unbroken.matrices_path)
    assert [line["step"] for line in lines(broken.matrices_path)] == [1, 20, 40]
    assert [step for step, _ in broken.checkpoints()] == [step for step, _ in unbroken.checkpoints()] == [35, 40]
    assert contents(broken.checkpoints()[-1][1]) == contents(unbroken.checkpoints()[-1][1])
    assert leftovers(broken.path) == []

    # A finished run that is started again changes nothing.
    before = contents(broken.checkpoints()[-1][1]), broken.metrics_path.read_bytes()
    assert work(broken) == 0
    assert (contents(broken.checkpoints()[-1][1]), broken.metrics_path.read_bytes()) == before


C_STEP = {"heads": 1, "grad_accumulation_steps": 2}  # a shape that training.c computes


@pytest.mark.skipif(native_training.library() is None, reason=native_training.why_not())
def test_a_run_with_its_step_in_c_resumes_bit_for_bit_and_says_so_where_there_is_no_c(text: Path) -> None:
    unbroken, broken = make("unbroken", text, **C_STEP), make("broken", text, **C_STEP)
    assert work(unbroken) == 0, unbroken.log_path.read_text()
    for moment in (("half a line", 12), ("half the weights", 1)):
        assert work(broken, moment) == -9, broken.log_path.read_text()
    assert work(broken) == 0, broken.log_path.read_text()
    assert losses(broken) == losses(unbroken)
    assert contents(broken.checkpoints()[-1][1]) == contents(unbroken.checkpoints()[-1][1])
    assert broken.status().precision.endswith(f"step in C for {native_training.instructions()}")
    assert "bit for bit" not in broken.log_path.read_text()

    environments: list[dict[str, str]] = [{}, {native_training.OFF: "0"}]
    for run, environment in zip((unbroken, broken), environments, strict=True):
        launch.set_steps(run, 40)
        command = [sys.executable, "-m", "tui_llm.training.worker", str(run.path)]
        with run.log_path.open("ab") as log:
            subprocess.run(command, env=os.environ | environment, stdout=log, check=True)
    assert broken.status().precision.endswith("without autograd")
    assert "not bit for bit as without a stop" in broken.log_path.read_text()
    for (_, mine, *_), (_, other, *_) in zip(losses(broken), losses(unbroken), strict=True):
        assert mine == pytest.approx(other, rel=1e-2)


def test_both_optimizers_states_are_restored(text: Path) -> None:
    fields = {"optimizer": "muon", "schedule": "wsd", "layers": 2}
    unbroken, broken = make("unbroken", text, **fields), make("broken", text, **fields)
    assert work(unbroken) == 0, unbroken.log_path.read_text()
    assert work(broken, ("half a line", 14)) == -9
    assert broken.checkpoints()
    assert work(broken) == 0, broken.log_path.read_text()
    assert losses(broken) == losses(unbroken)
    assert contents(broken.checkpoints()[-1][1]) == contents(unbroken.checkpoints()[-1][1])


def test_a_damaged_checkpoint_is_skipped_and_written_again(text: Path) -> None:
    run = make("run", text)
    assert work(run) == 0
    wanted, whole = losses(run), contents(run.checkpoints()[-1][1])
    weights = run.path / "checkpoint-30" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert work(run) == 0
    assert "checkpoint-30 is damaged" in run.log_path.read_text()
    assert losses(run) == wanted and contents(run.checkpoints()[-1][1]) == whole

    (run.path / "checkpoint-30" / "optimizer.safetensors").write_bytes(b"\0" * 64)
    (run.path / "checkpoint-28" / "optimizer.safetensors").unlink()
    assert work(run) == 1
    status = run.status()
    assert status.state == "failed" and "No older one is left" in status.message and "\n" not in status.message
    assert losses(run) == wanted  # the metrics are kept if the run can't be resumed


def test_a_changed_corpus_is_refused(text: Path) -> None:
    run = make("run", text)
    assert work(run, ("half a line", 12)) == -9
    before = text.read_text()
    text.write_text(before + "more")
    assert work(run) == 1
    assert "has changed since it began" in run.status().message
    text.write_text(before)
    assert work(run) == 0 and run.status().state == "finished"


def test_a_damaged_config_is_reported(text: Path) -> None:
    run = make("run", text)
    (run.path / "config.json").write_text('{"corpus": 3}')
    assert work(run) == 2
    assert run.status().state == "failed" and "config.json" in run.status().message


@pytest.mark.parametrize(("arch", "optimizer"), [("modern", "muon"), ("rope,window=5,gqa", "adamw")])
def test_a_killed_run_with_architecture_switches_too(arch: str, optimizer: str, text: Path) -> None:
    """Its folders are those of NanoChat and Starcoder2; what is resumed from them is bit-identical."""
    fields = {"arch": arch, "optimizer": optimizer, "width": 64}
    unbroken, broken = (make(name, text, **fields) for name in ("unbroken", "broken"))
    assert work(unbroken) == 0, unbroken.log_path.read_text()
    assert work(broken, ("half a line", 12)) == -9
    assert work(broken) == 0, broken.log_path.read_text()
    assert losses(broken) == losses(unbroken)
    assert lines(broken.samples_path) == lines(unbroken.samples_path)
    assert lines(broken.matrices_path) == lines(unbroken.matrices_path)
    assert contents(broken.checkpoints()[-1][1]) == contents(unbroken.checkpoints()[-1][1])
    assert losses(unbroken)[-1][1] < losses(unbroken)[0][1] - 0.5


@pytest.mark.skipif(native_training.library() is None, reason=native_training.why_not())
@pytest.mark.parametrize("arch", ["rope,gqa=1,window=8", "modern"])
@pytest.mark.parametrize("first", ["torch", "C"])
def test_a_run_that_goes_on_with_the_other_step_says_so(text: Path, first: str, arch: str) -> None:
    """From torch's step to the one in C, and back: the same losses but for rounding, and a message."""
    fields = {"heads": 2, "width": 32, "arch": arch, "steps": 6, "checkpoint_every": 6, "ema_decay": 0.9}
    same, changed = make("same", text, **fields), make("changed", text, **fields)
    environments: dict[str, dict[str, str]] = {"C": {}, "torch": {native_training.OFF: "0"}}
    second = next(name for name in environments if name != first)
    for run, ways in ((same, (first, first)), (changed, (first, second))):
        for steps, way in zip((6, 12), ways, strict=True):
            if steps == 12:
                launch.set_steps(run, steps)
            with run.log_path.open("ab") as log:
                command = [sys.executable, "-m", "tui_llm.training.worker", str(run.path)]
                subprocess.run(command, env=os.environ | environments[way], stdout=log, check=True)
            assert ("step in C" in run.status().precision) == (way == "C")
    said = "not bit for bit as without a stop"
    assert said in changed.log_path.read_text() and said not in same.log_path.read_text()
    for (_, mine, *_), (_, other, *_) in zip(losses(changed), losses(same), strict=True):
        assert mine == pytest.approx(other, rel=1e-2)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ({"arch": "modern"}, {"arch": "rmsnorm,rope,qk-norm,relu2,untied,zero-init"}, "softcap 15.0"),
        ({"arch": "rope,window=5"}, {"arch": "rope,window=6"}, "window 5"),
        ({"arch": "rope=500"}, {"arch": "rope"}, "rope 500.0"),
        ({"arch": "relu2"}, {"arch": ""}, "relu2 True"),
        ({"heads": 2}, {"heads": 4}, "heads 2"),
        ({"arch": "modern"}, {"arch": "gpt2"}, "rope 10000.0"),
    ],
)
def test_settings_of_another_model_do_not_go_on(
    text: Path, before: dict[str, Any], after: dict[str, Any], why: str
) -> None:
    """Its weights would fit, but each number from then on would be another model's."""
    run = make("run", text, **before, steps=7)
    assert work(run) == 0
    settings = dataclasses.replace(run.config().settings, **after, steps=9)
    launch.rewrite(run, settings)
    assert work(run) == 1
    message = run.status().message
    assert f"checkpoint-7 of run run has {why}, but its config.json" in message and "damaged" not in message
    launch.rewrite(
        run, dataclasses.replace(settings, **{name: before.get(name, getattr(TINY, name)) for name in after})
    )
    assert work(run) == 0 and run.status().step == 9


def test_a_run_whose_settings_can_not_be_read_has_no_number_of_steps(
    text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make("broken", text, steps=7)
    assert work(run) == 0
    config = run.path / "config.json"
    config.write_text(config.read_text().replace('"arch": ""', '"arch": "rope,window,softcap"'))
    assert main(["runs"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("broken"))
    assert "7 / –" in line and "no layout holds both" in line
