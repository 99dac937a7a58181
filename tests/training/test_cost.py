"""The estimated cost of a run, against torch's own counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.training.answer_helpers import begin, model_folder
from tests.training.run_helpers import TINY
from tui_llm.cli import main
from tui_llm.llm.data import answer_rows
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.predict.draw_group import draw_group
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.training.plan.cost import cost, shape
from tui_llm.training.run.run import ANSWERS
from tui_llm.training.run.settings import PRESETS, from_fields
from tui_llm.training.worker.optimizers import optimizers
from tui_llm.training.worker.reward import Group, RewardTrainer

SETTINGS = from_fields({"layers": 3, "heads": 4, "width": 64, "block_size": 48, "batch_size": 2, "steps": 7}, TINY)
CONFIG = GPTConfig(300, 48, 3, 4, 64)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(2 * 49).view(2, 49)
    return ids[:, :-1], ids[:, 1:]


def test_operations_are_those_that_torch_counts() -> None:
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the backend whose matrix products the counter sees
        GPT(CONFIG).loss(*batch()).backward()
    said = cost(SETTINGS, CONFIG)
    assert said.flops / SETTINGS.steps == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert (said.step_tokens, said.tokens) == (96, 7 * 96)


@pytest.mark.parametrize("updates", [1, 3])
def test_operations_of_a_step_on_drawn_answers_are_those_that_torch_counts(tmp_path: Path, updates: int) -> None:
    """A prompt of one token, so that the output head, which runs on answers only, runs everywhere; answers of one length."""
    model = model_folder(tmp_path / "model")
    run = begin("run", model, None, "reward", updates=updates, sample_prompt="a", answer_tokens=8, block_size=8)
    rows = answer_rows.load(run.path / ANSWERS, 257)
    policy, start = checkpoint.load(model).requires_grad_(True), checkpoint.load(model)
    trainer = RewardTrainer(policy, start, rows, byte_level(), run.config().settings, torch.device("cpu"))
    trainer.products = torch.float32  # each answer is a row of its own

    def counted(work: Callable[[], object]) -> int:
        counter = FlopCounterMode(display=False)
        with counter, sdpa_kernel(SDPBackend.MATH):
            work()
        return counter.get_total_flops()

    answers = [list(range(98 + row, 106 + row)) for row in range(4)]
    groups = [Group([97], answers, [0.0, 1.0, 2.0, 3.0]) for _ in range(trainer.settings.batch_size)]
    trainer._groups = lambda number, part: groups  # type: ignore[method-assign]
    found = counted(lambda: trainer._update(1, 1e-3))
    drawn = trainer._batches[0]
    with torch.no_grad():
        forward = counted(lambda: trainer._logs(trainer.model, drawn.inputs, drawn.targets))
    assert found == pytest.approx(forward * (2 + 3 * updates), rel=0.01)
    assert trainer.flops_per_token * trainer.step_tokens == pytest.approx(found, rel=0.05)
    # the estimate also counts the drawing: the prompt, then the tokens of each answer one after the other
    for _ in groups:
        found += counted(lambda: draw_group(policy, [97], [1, 2, 3, 4], size=257, count=8))
    estimate = cost(trainer.settings, policy.config)
    assert estimate.flops / trainer.settings.steps == pytest.approx(found, rel=0.05)
    assert estimate.flops_per_weight == 2 + 4 + 6 * updates


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_state_is_what_a_step_leaves(optimizer: str) -> None:
    s, model = from_fields({"optimizer": optimizer}, SETTINGS), GPT(CONFIG)
    model.loss(*batch()).backward()
    tensors = [t for p in model.parameters() for t in (p, p.grad)]
    for optimizer in optimizers(model, s, torch.device("cpu")):
        optimizer.step()
        tensors += [t for state in optimizer.state.values() for key, t in state.items() if key != "step"]
    assert cost(s, CONFIG).state_bytes == sum(t.nbytes for t in tensors)
    assert cost(s, CONFIG).parameters == sum(p.numel() for p in model.parameters())


def test_activations_are_those_that_autograd_keeps() -> None:
    model, kept = GPT(CONFIG), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if t.is_floating_point() and t.untyped_storage().data_ptr() not in weights:
            kept[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = model.loss(*batch())
    assert loss.isfinite()
    logits = 96 * 300 * 4  # the second copy is the gradient's
    measured = sum(t.untyped_storage().nbytes() for t in kept.values()) + logits
    assert cost(SETTINGS, CONFIG).activation_bytes == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(
    ("name", "millions"), [("gpt2", 124), ("gpt2-medium", 355), ("gpt2-large", 774), ("gpt2-xl", 1558)]
)
def test_presets_have_the_published_sizes(name: str, millions: int) -> None:
    s = PRESETS[name]
    said = cost(s, shape(s, 50257))
    assert round(said.parameters / 1e6) == millions
    assert said.tokens == pytest.approx(3e11, rel=0.06)


def test_as_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--preset", "gpt2-xl", "--cost", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["parameters"] == 1_557_611_200 and said["memory_bytes"] > 16 * said["parameters"]
    assert main(["train", "--preset", "toy", "--cost", "--steps", "10"]) == 0
    out = capsys.readouterr().out
    assert "10 steps of 1,024" in out and "parameters" in out
    assert main(["train", "--preset", "toy"]) == 2
    assert "--run toy" in capsys.readouterr().err
