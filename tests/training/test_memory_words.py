"""The estimate of a run's memory counts tensors, the metric is what the process holds: each says so where it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.run_helpers import TINY, words
from tui_llm.cli import main
from tui_llm.common.numbers import memory_size
from tui_llm.llm.model.model import GPT
from tui_llm.training.plan.cost import cost, shape
from tui_llm.training.worker.measurements import memory_bytes
from tui_llm.tui.glossary import TERMS
from tui_llm.tui.runs.estimate import cost_line

PARTS = ("weights, gradients", "optimizer state", "activations", "Python and torch need some hundred MB beside them")


def test_the_estimate_says_that_it_counts_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(3000))
    assert main(["train", str(text), "--preset", "toy", "--cost"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("memory"))
    assert all(part in line for part in PARTS)
    found = cost(TINY, shape(TINY, 257))
    assert f"about {memory_size(found.memory_bytes)} of tensors · " in cost_line(TINY, shape(TINY, 257))


def test_the_command_that_trains_says_it_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(3000))
    monkeypatch.setattr("tui_llm.training.plan.launch.start", lambda run: None)
    monkeypatch.setattr("tui_llm.training.plan.follow.follow", lambda run, **more: 0)
    assert main(["train", str(text), "--preset", "toy", "--run", "r"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert all(part in line for part in PARTS)


def test_the_estimate_is_of_tensors_and_the_metric_is_of_the_process() -> None:
    config = shape(TINY, 257)
    model = GPT(config)
    tensors = 4 * sum(one.numel() * one.element_size() for one in model.parameters())  # weights, gradients, AdamW's two
    assert cost(TINY, config).state_bytes == pytest.approx(tensors, rel=0.01)
    held = memory_bytes(torch.device("cpu"))
    assert held is not None and held > 10 * cost(TINY, config).memory_bytes, "torch itself is most of it"
    meaning = {term.name: term for term in TERMS}
    assert "Python and torch" in meaning["memory"].meaning and "training" in meaning["memory"].places
    assert "Python and torch" in meaning["of tensors"].meaning and "new_run" in meaning["of tensors"].places
