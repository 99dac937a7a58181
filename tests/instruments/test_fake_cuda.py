"""A run and every instrument on a device whose tensors refuse those of the CPU: see tests/fake_cuda.py."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.fake_cuda import FakeCudaTensor, fake_cuda
from tests.training.answer_helpers import begin, model_folder, write_pairs, write_prompts
from tests.training.run_helpers import TINY, losses, words
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request, Target
from tui_llm.training.plan import launch
from tui_llm.training.run.settings import from_fields
from tui_llm.training.worker import loop, process, worker

SCRIPTS = Path(__file__).parents[2] / "scripts"
FIELDS = {
    "layers": 2,
    "steps": 6,
    "eval_every": 3,
    "checkpoint_every": 4,
    "compile": "off",
    "block_size": 64,
    "width": 32,
}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    with fake_cuda(monkeypatch):
        yield


@pytest.mark.usefixtures("device")
def test_tensors_of_two_devices_do_not_meet() -> None:
    x = torch.ones(3, device="cuda")
    assert (
        isinstance(x, FakeCudaTensor)
        and x.device.type == "cuda"
        and (x + 1).is_cuda
        and (x * torch.tensor(2.0)).is_cuda
    )
    assert x[torch.tensor([0, 2])].tolist() == [1, 1] and not x.cpu().is_cuda and float(x.sum()) == 3
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(3)
    with pytest.raises(RuntimeError, match="indices"):
        torch.ones(3)[torch.tensor([0], device="cuda")]
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()
    linear = torch.nn.Linear(3, 2).to("cuda")
    linear(x).sum().backward()
    assert linear.weight.grad is not None and linear.weight.grad.is_cuda


def test_a_run_and_every_instrument(device: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_questions

    monkeypatch.setattr(loop, "trains_in_bfloat16", lambda _: False)
    text = tmp_path / "text.txt"
    text.write_text(words(2000))
    runs = {
        place: launch.create(place, [str(text)], from_fields(FIELDS, TINY), preset="toy", device=place)
        for place in ("cuda", "cpu")
    }
    for run in runs.values():
        assert process.work(worker.Worker(run)) == 0, run.status().message
    assert [row[1] for row in losses(runs["cuda"])] == pytest.approx([row[1] for row in losses(runs["cpu"])], rel=1e-3)

    launch.set_steps(runs["cuda"], 8)  # resumed from the device's checkpoint
    assert process.work(worker.Worker(runs["cuda"])) == 0
    for weights in ("fp32", "half"):
        engine = PipelineEngine("cuda", weights)
        engine.open("run:cuda")
        failed = []
        made = gpu_questions.questions("the cat sat on", "the mat sat on", tmp_path, engine.folder, "run:cuda")
        for name, question in made.items() if weights == "fp32" else ():
            try:
                engine.answer(question)
            except Exception:
                failed.append(f"{name}: {traceback.format_exc(limit=-4)}")
        assert not failed, "\n".join(failed)
        reading = engine.read(Request(prompt="the cat sat", target=Target(text=" on"), scores=True))
        assert reading.loss is not None
        assert len(list(engine.generate(Request(prompt="the"), seed=1, count=5, stop_at_end=False))) == 5
        assert engine.window.predictor.static_step is not None  # type: ignore[attr-defined]


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("objective", ["preference", "reward"])
def test_runs_that_learn_from_answers(objective: str, tmp_path: Path) -> None:
    corpus = (
        write_pairs(tmp_path / "pairs.jsonl") if objective == "preference" else write_prompts(tmp_path / "prompts.txt")
    )
    model = model_folder(tmp_path / "model")
    run = begin(
        "run", model, corpus, objective, device="cuda", steps=3, eval_every=2, updates=2 if objective == "reward" else 1
    )
    assert process.work(worker.Worker(run)) == 0, run.status().message
    assert run.config().device == "cuda" and len(losses(run)) == 3
