"""An engine that reads in numpy first: the same answers as torch's, before and after torch takes over."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from tests.near_ties import possible_ranks
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.model import Weights
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.attention.question import AttentionQuestion
from tui_llm.instruments.gradient.question import GradientQuestion
from tui_llm.instruments.neighbours.question import NeighboursQuestion
from tui_llm.instruments.vocabulary.question import VocabularyQuestion
from tui_llm.llm.model import device_names

REQUEST = Request(prompt="Once upon a time, there was", target=Target(text=" a little"), scores=True, top=50)


def opened(model: str = "nano") -> PipelineEngine:
    engine = PipelineEngine("cpu", numpy_first=True)
    engine.open(model)
    return engine


def reader(weights: Weights) -> str:
    return weights.reader


def assert_equal(one: Reading, other: Reading) -> None:
    """Equal to 1e-5, relative to 1 or more; the order of near ties is free."""
    assert one.distribution and other.distribution and one.loss and other.loss
    logits = {row.id: row.logit for row in other.distribution.candidates}
    for row in one.distribution.candidates[:40]:
        assert row.logit == pytest.approx(logits[row.id], rel=1e-5, abs=1e-5)
        near = [value for value in logits.values() if abs(value - row.logit) < 1e-4]
        assert abs(row.rank - [r.id for r in other.distribution.candidates].index(row.id) - 1) < len(near)
    for name in ("logsumexp", "entropy"):
        assert getattr(one.distribution, name) == pytest.approx(getattr(other.distribution, name), rel=1e-5, abs=1e-5)
    assert [t.loss.nats for t in one.loss.tokens] == pytest.approx([t.loss.nats for t in other.loss.tokens], rel=1e-5, abs=1e-5)  # fmt: skip
    for score, same in zip(one.scores, other.scores, strict=True):
        assert (score is None) == (same is None)
        if score is not None and same is not None:
            assert score.surprisal == pytest.approx(same.surprisal, rel=1e-5, abs=1e-5)


def test_the_readings_before_and_after_the_take_over_are_equal() -> None:
    engine = opened()
    first = engine.read(REQUEST)
    assert reader(first.weights) == "numpy" and "computed by numpy" in repr(first)
    drawn = [token.id for token in engine.generate(REQUEST, seed=4, count=12)]
    page = engine.answer(VocabularyQuestion(REQUEST, stop=20, find="th"))
    step = engine.answer(GradientQuestion(REQUEST))
    taken = engine.use_torch()
    assert taken is not None and reader(taken) == "torch" and engine.use_torch() is None
    again = engine.read(REQUEST)
    assert reader(again.weights) == "torch" and again.forward_tokens == len(again.prompt_ids)
    assert_equal(first, again)
    assert first.weights == again.weights and "computed by" not in repr(again)
    assert [token.id for token in engine.generate(REQUEST, seed=4, count=12)] == drawn
    assert engine.answer(VocabularyQuestion(REQUEST, stop=20, find="th")).count == page.count
    for row, same in zip(engine.answer(GradientQuestion(REQUEST)).rows[:3], step.rows, strict=False):
        assert (row.token.id, row.probability) == (same.token.id, pytest.approx(same.probability, rel=1e-5, abs=1e-5))
    plain = PipelineEngine("cpu")
    plain.open("nano")
    assert_equal(first, plain.read(REQUEST))
    logits = plain.logits(REQUEST)
    assert all(row.rank in possible_ranks(logits, row.id) for row in first.distribution.candidates)  # type: ignore[union-attr]


def test_the_window_that_slides_is_read_the_same() -> None:
    request = dataclasses.replace(REQUEST, prompt="the cat sat on the mat and " * 60)
    engine = opened()
    first = engine.read(request)
    assert first.fed < len(first.prompt_ids) and reader(first.weights) == "numpy"
    engine.use_torch()
    assert_equal(first, engine.read(request))


@pytest.mark.parametrize("question", [AttentionQuestion(REQUEST), NeighboursQuestion(REQUEST)])
def test_a_question_that_needs_torch_takes_over(question: object) -> None:
    engine = opened()
    assert reader(engine.weights()) == "numpy" and engine.is_gpt
    engine.answer(question)  # type: ignore[arg-type]
    assert reader(engine.weights()) == "torch"
    engine.open("nano")
    assert reader(engine.weights()) == "torch", "torch is there now"


def test_what_numpy_does_not_read_goes_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in (PipelineEngine("cpu"), PipelineEngine("cpu", "half", numpy_first=True)):
        engine.open("nano")
        assert reader(engine.weights()) == "torch" and engine.use_torch() is None
    monkeypatch.setattr("tui_llm.session.open_model.is_cpu", lambda name: False)
    assert reader(opened().weights()) == "torch"


def test_without_torch_only_what_is_surely_a_cpu_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_names.sys, "platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert device_names.is_cpu("auto", tmp_path) and device_names.is_cpu("cpu", tmp_path)
    assert not device_names.is_cpu("cuda", tmp_path) and not device_names.is_cpu("mps", tmp_path)
    for name in ("nvidia0", "nvidiactl", "kfd", "dxg"):
        (tmp_path / name).touch()
        assert not device_names.is_cpu("auto", tmp_path) and device_names.is_cpu("cpu", tmp_path)
        with monkeypatch.context() as hidden:
            hidden.setenv("CUDA_VISIBLE_DEVICES", "")
            assert device_names.is_cpu("auto", tmp_path) and not device_names.is_cpu("cuda", tmp_path)
        (tmp_path / name).unlink()
    monkeypatch.setattr(device_names.sys, "platform", "win32")
    assert not device_names.is_cpu("auto", tmp_path)
    monkeypatch.setattr(device_names.sys, "platform", "darwin")
    for machine, sure in (("arm64", False), ("x86_64", True)):
        monkeypatch.setattr(device_names.platform, "machine", lambda machine=machine: machine)
        assert device_names.is_cpu("auto", tmp_path) is sure


def test_an_unknown_device_or_model_is_refused_as_with_torch() -> None:
    with pytest.raises(UserError, match="no device"):
        PipelineEngine("tpu", numpy_first=True)
    engine = opened()
    with pytest.raises(UserError):
        engine.open("no-such-model")
    assert engine.weights().name == "nano"


def test_torch_is_imported_as_ever_after_its_library() -> None:
    code = (
        "from tui_llm.llm.model import torch_import\n"
        "import sys\n"
        "assert sys.platform != 'linux' or torch_import._load_library()\n"
        "assert 'torch' not in sys.modules\n"
        "torch_import.import_torch()\n"
        "import torch\n"
        "assert float((torch.ones(64, 64) @ torch.ones(64, 64)).sum()) == 64**3"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
