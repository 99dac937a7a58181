"""torch.compile: when it is used, that it does not change the training, and what happens if it fails."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from tests.training.run_helpers import contents, losses, make, words
from tui_llm.cli import main
from tui_llm.training.plan import launch
from tui_llm.training.run.run import Run
from tui_llm.training.worker import process, torch_compile, worker


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(words(2000))
    return path


def here(run: Run) -> int:
    return process.work(worker.Worker(run))


def test_auto_is_on_for_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    assert torch_compile.wanted("auto", torch.device("cuda")) and torch_compile.wanted("on", torch.device("cpu"))
    assert not torch_compile.wanted("auto", torch.device("cpu")) and not torch_compile.wanted(
        "auto", torch.device("mps")
    )
    assert not torch_compile.wanted("off", torch.device("cuda"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)  # no triton, so `auto` does not compile
    assert not torch_compile.wanted("auto", torch.device("cuda"))


def test_a_compiled_run_has_the_same_losses_and_checkpoints(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, run = make("plain", text, steps=4), make("run", text, steps=4, compile="on", grad_accumulation_steps=1)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    assert here(plain) == 0 and here(run) == 0
    assert [row[1] for row in losses(run)] == pytest.approx([row[1] for row in losses(plain)], rel=1e-3)
    ours, theirs = (contents(r.checkpoints()[-1][1]) for r in (run, plain))
    assert ours.keys() == theirs.keys() and ours["config.json"] == theirs["config.json"]
    # Resume the compiled run without compiling.
    launch.change_execution(run, {"compile": "off"})
    launch.set_steps(run, 6)
    assert here(run) == 0 and run.status().state == "finished"


def test_if_compiling_fails_it_is_reported_and_the_run_continues(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, run = make("plain", text, steps=4, dropout=0.2), make("run", text, steps=4, dropout=0.2, compile="on")
    assert here(plain) == 0

    def broken(_function: object, **_: object) -> object:
        def call(*_: object) -> None:
            torch.rand(3)  # earlier random draws must not change the steps' dropout
            raise RuntimeError("no C++ compiler\n\x1b[31m[red]")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    said: list[str] = []
    monkeypatch.setattr(worker, "log", said.append)
    assert here(run) == 0
    assert any("torch.compile failed, the step is not compiled (RuntimeError: no C++ compiler" in line for line in said)
    assert losses(run) == losses(plain)


def test_out_of_memory_while_compiling_is_out_of_memory(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: full)
    run = make("run", text, compile="on")
    assert here(run) == 1 and run.status().fits == (2, 2)


def test_another_choice_is_refused(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(text), "--run", "r", "--preset", "toy", "--compile", "[/]"]) == 2
    assert "compile is '[/]'; give one of auto, on, off" in capsys.readouterr().err
