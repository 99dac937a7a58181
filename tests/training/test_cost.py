"""The estimated cost of a run, against torch's own counts."""

from __future__ import annotations

import json
import statistics
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
from tui_llm.llm.model import checkpoint, switches
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.predict.draw_group import draw_group
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.training.plan.cost import cost, shape
from tui_llm.training.plan.follow import progress
from tui_llm.training.run.jsonl import append_to
from tui_llm.training.run.metrics import metric_line
from tui_llm.training.run.run import ANSWERS, Run
from tui_llm.training.run.settings import PRESETS, TrainingSettings, from_fields
from tui_llm.training.run.snapshot import RunReader
from tui_llm.training.worker import measurements
from tui_llm.training.worker.answers import AnswerTrainer
from tui_llm.training.worker.optimizers import optimizers
from tui_llm.training.worker.preference import PreferenceTrainer
from tui_llm.training.worker.reward import Group, RewardTrainer

SETTINGS = from_fields({"layers": 3, "heads": 4, "width": 64, "block_size": 48, "batch_size": 2, "steps": 7}, TINY)
CONFIG = GPTConfig(300, 48, 3, 4, 64)
ARCHS = (
    "",
    "relu2,untied",
    "rope",
    "rope,gqa",
    "rope,gqa=1",
    "rope,window=8",
    "rope,window=47,gqa,untied",
    "rope,rmsnorm",
    "rope,rmsnorm,gqa,relu2",
    "rope,rmsnorm,qk-norm",
    "rope,rmsnorm,qk-norm,gqa",
    switches.SETS["modern"],
    f"{switches.SETS['modern']},gqa=1",
)
each_arch = pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch or "gpt2")


def with_switches(arch: str) -> tuple[TrainingSettings, GPTConfig]:
    return from_fields({"arch": arch}, SETTINGS), switches.applied(CONFIG, arch)


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


def counted(work: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("updates", [1, 3])
def test_operations_of_a_step_on_drawn_answers_are_those_that_torch_counts(tmp_path: Path, updates: int) -> None:
    """A prompt of one token, so that the output head, which runs on answers only, runs everywhere; answers of one length."""
    model = model_folder(tmp_path / "model")
    run = begin("run", model, None, "reward", updates=updates, sample_prompt="a", answer_tokens=8, block_size=8)
    rows = answer_rows.load(run.path / ANSWERS, 257)
    policy, start = checkpoint.load(model).requires_grad_(True), checkpoint.load(model)
    trainer = RewardTrainer(policy, start, rows, byte_level(), run.config().settings, torch.device("cpu"))
    trainer.products = torch.float32  # each answer is a row of its own

    answers = [list(range(98 + row, 106 + row)) for row in range(4)]
    groups = [Group([97], answers, [0.0, 1.0, 2.0, 3.0]) for _ in range(trainer.settings.batch_size)]
    trainer._groups = lambda number, part: groups  # type: ignore[method-assign]
    found = counted(lambda: trainer._update(1, 1e-3))
    drawn = trainer._batches[0]
    with torch.no_grad():
        forward = counted(lambda: trainer._logs(trainer.model, drawn.inputs, drawn.targets))
    assert found == pytest.approx(forward * (2 + 3 * updates), rel=0.01)
    assert trainer.measured["flops_per_token"] * trainer.step_tokens == pytest.approx(found, rel=0.05)
    # the estimate also counts the drawing: the prompt, then the tokens of each answer one after the other
    for _ in groups:
        found += counted(lambda: draw_group(policy, [97], [1, 2, 3, 4], size=257, count=8))
    estimate = cost(trainer.settings, policy.config)
    assert estimate.flops / trainer.settings.steps == pytest.approx(found, rel=0.05)
    assert estimate.flops_per_weight == 2 + 4 + 6 * updates


WIDE = GPTConfig(vocabulary=257, context=32, layers=1, heads=2, width=64)  # biases are few, the head is a quarter
PROMPT = "Twenty letters long:"


def pairs_of_one_length(path: Path) -> Path:
    rows = [{"prompt": PROMPT, "chosen": f"yes{i}", "rejected": f"not{i}"} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def trainer_of(cls: type[AnswerTrainer], run: Run, model: Path) -> AnswerTrainer:
    rows = answer_rows.load(run.path / ANSWERS, 257)
    policy, start = checkpoint.load(model).requires_grad_(True), checkpoint.load(model)
    return cls(policy, start, rows, byte_level(), run.config().settings, torch.device("cpu"))


def test_the_head_of_a_step_on_pairs_counts_on_the_answers_only(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", WIDE)
    run = begin("run", model, pairs_of_one_length(tmp_path / "pairs.jsonl"), "preference")
    trainer = trainer_of(PreferenceTrainer, run, model)
    found = counted(lambda: trainer._update(1, 1e-3))
    assert trainer.step_tokens == 2 * trainer.settings.batch_size * 23
    assert trainer.measured["flops_per_token"] * trainer.step_tokens == pytest.approx(found, rel=0.03)


@pytest.mark.parametrize("learns", [True, False], ids=["update", "equal-rewards"])
@pytest.mark.parametrize("products", [torch.float32, None], ids=["rows", "shared-prompt"])
def test_the_head_of_a_step_on_drawn_answers_counts_on_the_answers_only(
    tmp_path: Path, products: torch.dtype | None, learns: bool
) -> None:
    model = model_folder(tmp_path / "model", WIDE)
    run = begin("run", model, None, "reward", sample_prompt=PROMPT, answer_tokens=4, batch_size=1)
    trainer = trainer_of(RewardTrainer, run, model)
    assert isinstance(trainer, RewardTrainer)
    trainer.products = products  # None: as on a GPU, where a prompt is computed once
    answers = [[98 + row] * 4 for row in range(4)]
    group = Group(list(PROMPT.encode()), answers, [0.0, 1.0, 2.0, 3.0] if learns else [1.0] * 4)
    trainer._groups = lambda number, part: [group]  # type: ignore[method-assign]
    found = counted(lambda: trainer._update(1, 1e-3))
    assert trainer.step_tokens == (4 * 23 if products else 20 + 4 * 3)
    # A mask over a shared prompt's one row has products of tokens that do not see each other, which torch counts.
    rel = 0.03 if products else 0.05
    assert trainer.measured["flops_per_token"] * trainer.step_tokens == pytest.approx(found, rel=rel)


def test_mfu_of_a_run_on_answers_is_that_of_its_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_folder(tmp_path / "model", WIDE)
    run = begin("run", model, pairs_of_one_length(tmp_path / "pairs.jsonl"), "preference", steps=2)
    trainer = trainer_of(PreferenceTrainer, run, model)
    metrics = list(trainer.steps())
    for metric in metrics:
        append_to(run.metrics_path, metric_line(metric))
    facts = measurements.Gauges(trainer, "cpu").facts
    run.write_status("finished", **{**facts, "peak_flops": 1e15})
    rate = statistics.harmonic_mean([metric.tokens_per_second for metric in metrics])
    expected = counted(lambda: trainer._update(3, 1e-3)) / trainer.step_tokens * rate / 1e15
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["mfu"] == pytest.approx(expected, rel=0.03)
    snapshot = RunReader(run).read()
    assert snapshot.mfu == pytest.approx(expected, rel=0.03) and snapshot.tokens_per_second == pytest.approx(rate)
    assert f"MFU {100 * expected:.1f} %" in progress(run, metrics[-1], metrics)  # 0.0 %: that it is there


@each_arch
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_state_is_what_a_step_leaves(optimizer: str, arch: str) -> None:
    s, config = with_switches(arch)
    s, model = from_fields({"optimizer": optimizer}, s), GPT(config)
    model.loss(*batch()).backward()
    tensors = [t for p in model.parameters() for t in (p, p.grad)]
    for optimizer in optimizers(model, s, torch.device("cpu")):
        optimizer.step()
        tensors += [t for state in optimizer.state.values() for key, t in state.items() if key != "step"]
    assert cost(s, config).state_bytes == sum(t.nbytes for t in tensors)
    assert cost(s, config).parameters == sum(p.numel() for p in model.parameters())


@each_arch
def test_activations_are_those_that_autograd_keeps(arch: str) -> None:
    settings, config = with_switches(arch)
    model, kept = GPT(config), {}
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
    assert cost(settings, config).activation_bytes == pytest.approx(measured, rel=0.05)


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
