"""matrices.jsonl against torch's autograd and copies of the weights; training is the same with and without it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.training.run_helpers import TINY, words
from tui_llm.llm.data import corpus
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.training.run import jsonl, matrix_statistics
from tui_llm.training.run.matrix_statistics import MatrixStatistics, MatrixStatisticsTail
from tui_llm.training.run.settings import from_fields
from tui_llm.training.worker import loop
from tui_llm.training.worker.loop import Trainer
from tui_llm.training.worker.matrix_recorder import MatrixRecorder


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "trains_in_bfloat16", lambda _: False)
    monkeypatch.setattr(matrix_statistics, "EVERY", 2)


def trainer(tmp_path: Path, *, tied: bool = True, **fields: object) -> Trainer:
    s = from_fields({"layers": 2, "width": 12, "steps": 5, **fields}, TINY)
    text = tmp_path / "text.txt"
    text.write_text(words(2000))
    data = corpus.load([text], byte_level(), s.validation_fraction, block_size=s.block_size)
    torch.manual_seed(s.seed)
    shape = GPTConfig(257, s.block_size, s.layers, s.heads, s.width, dropout=s.dropout, tied=tied)
    return Trainer(GPT(shape), data, s, torch.device("cpu"))


def expected(ours: Trainer, step: int) -> tuple[dict[str, list[float]], float, list[float]]:
    """Gradient norms by parameter group from autograd in float64, their total, and the RMS of the blocks' outputs."""
    s = ours.settings
    model = GPT(ours.model.config).double()
    model.load_state_dict(ours.model.state_dict())
    model.eval()
    scales: list[float] = []
    batches = [ours.batches.batch((step - 1) * s.grad_accumulation_steps + part) for part in range(s.grad_accumulation_steps)]  # fmt: skip
    hooks = [b.register_forward_hook(lambda _m, _i, o: scales.append(float(o.pow(2).mean().sqrt()))) for b in model.blocks]  # fmt: skip
    with torch.no_grad():
        model(batches[0][0][: matrix_statistics.rows(s.batch_size)])
    for hook in hooks:
        hook.remove()
    for x, y in batches:
        loss = torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()) / len(batches)
        loss.backward()
    return norms({name: p.grad for name, p in model.named_parameters()}, s.layers), total_norm(model), scales


def total_norm(model: GPT) -> float:
    return float(torch.nn.utils.clip_grad_norm_(model.parameters(), math.inf))


def norms(tensors: dict[str, torch.Tensor], layers: int) -> dict[str, list[float]]:
    """Frobenius norms by kind, a number a layer, written down name by name."""

    def together(*found: torch.Tensor) -> float:
        return float(torch.cat([one.flatten().double() for one in found]).norm())

    blocks = [{n.split(".", 2)[2]: t for n, t in tensors.items() if n.startswith(f"blocks.{i}.")} for i in range(layers)]  # fmt: skip
    width = len(tensors["norm.weight"])
    found = {
        "embedding": [together(tensors["tokens.weight"])],
        "positions": [together(tensors["positions.weight"])],
        "final_norm": [together(tensors["norm.weight"], tensors["norm.bias"])],
        "attention_output": [together(b["attention.out.weight"]) for b in blocks],
        "mlp_up": [together(b["mlp.up.weight"]) for b in blocks],
        "mlp_down": [together(b["mlp.down.weight"]) for b in blocks],
        "vectors": [together(*(t for t in b.values() if t.dim() == 1)) for b in blocks],
    }
    for at, kind in enumerate(("q", "k", "v")):
        found[kind] = [together(b["attention.qkv.weight"][at * width : (at + 1) * width]) for b in blocks]
    if "head.weight" in tensors:
        found["head"] = [together(tensors["head.weight"])]
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"clip": 0.1, "grad_accumulation_steps": 2, "weight_decay": 0.5, "batch_size": 32},
        {"tied": False},
        {"optimizer": "muon", "clip": 0.1},
        {"precision": "fp32", "autograd": True},
    ],
    ids=["plain", "clipped", "untied", "muon", "autograd"],
)
def test_the_numbers_are_those_of_autograd_and_of_the_real_update(tmp_path: Path, fields: dict[str, object]) -> None:
    autograd = fields.pop("autograd", False)
    ours = trainer(tmp_path, **fields)  # type: ignore[arg-type]
    if autograd:
        ours.fast_step = ours.flat = None
    assert (ours.fast_step is None) == bool(autograd)
    ours.matrices = MatrixRecorder(ours.model, ours.settings.steps)
    steps = ours.steps()
    for number in range(1, 6):
        wanted, total, scales = expected(ours, number)
        before = {name: p.detach().double().clone() for name, p in ours.model.weights()}
        metric, found = next(steps), ours.matrices.take()
        assert (found is not None) == (number in (1, 2, 4, 5))
        if found is None:
            continue
        assert found.step == metric.step == number and set(found.gradient) == set(found.update) == set(wanted)
        for kind, values in found.gradient.items():
            assert values == pytest.approx(wanted[kind], rel=2e-3, abs=1e-8), kind
        squares = sum(value**2 for values in found.gradient.values() for value in values)
        assert math.sqrt(squares) == pytest.approx(metric.grad_norm, rel=1e-6)
        assert metric.grad_norm == pytest.approx(total, rel=1e-3)
        change = norms({n: p.detach().double() - before[n] for n, p in ours.model.weights()}, ours.settings.layers)
        size = norms(before, ours.settings.layers)
        for kind, values in found.update.items():
            assert values == pytest.approx([c / w for c, w in zip(change[kind], size[kind], strict=True)], rel=1e-4), kind  # fmt: skip
        assert found.activation == pytest.approx(scales, rel=1e-4)


def test_norms_of_many_numbers_do_not_lose_precision(tmp_path: Path) -> None:
    """A plain float32 norm of 40 million numbers is off by 0.2 %."""
    model = GPT(GPTConfig(50_000, 16, 1, 2, 64))
    recorder = MatrixRecorder(model, 1)
    for one in model.parameters():
        one.grad = torch.randn_like(one) * 0.02
    recorder.before(1)
    recorder.after()
    found = recorder.take()
    assert found is not None
    wanted = float(model.tokens.weight.grad.double().norm())
    assert found.gradient["embedding"][0] == pytest.approx(wanted, rel=1e-6)
    assert set(found.update["q"]) == {0.0}


@pytest.mark.parametrize("fields", [{}, {"dropout": 0.1}, {"optimizer": "muon"}], ids=["fast", "dropout", "muon"])
def test_training_is_bit_for_bit_the_same_with_and_without(tmp_path: Path, fields: dict[str, object]) -> None:
    made = []
    for recorded in (False, True):
        ours = trainer(tmp_path, **fields)  # type: ignore[arg-type]
        ours.matrices = MatrixRecorder(ours.model, 5) if recorded else None
        losses = [(metric.loss, metric.grad_norm, metric.val_loss) for metric in ours.steps()]
        made.append((losses, {name: p.detach().clone() for name, p in ours.model.weights()}))
    assert made[0][0] == made[1][0]
    assert all(torch.equal(made[0][1][name], made[1][1][name]) for name in made[0][1])


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "matrices.jsonl"
    one = MatrixStatistics(3, {"q": (0.5, 0.25), "embedding": (1.0,)}, {"q": (1e-3, math.nan)}, (0.25, 0.5))
    jsonl.append_to(path, matrix_statistics.line(one))
    with path.open("ab") as file:
        for damaged in (b'{"step": 4', b'{"gradient": {}}', b'{"step": -1}', b'{"step": 5, "gradient": {"q": 3}}',
                        b'{"step": 5, "gradient": {"q": ["x"]}}', b'{"step": 5, "gradient": {"q": [-1]}}', b"[]",
                        b'{"step": 5, "activation": [' + b"1," * 2000 + b"1]}"):  # fmt: skip
            file.write(damaged + b"\n")
        file.write(b'{"step": 6, "later": 1, "gradient": {"q": [2], "other": [1]}}\n')
    found = MatrixStatisticsTail(path).new()
    assert [line.step for line in found] == [3, 6]
    assert found[0].gradient == {"embedding": (1.0,), "q": (0.5, 0.25)} and math.isnan(found[0].update["q"][1])
    assert found[0].activation == (0.25, 0.5) and found[1].gradient == {"q": (2.0,)}
    jsonl.drop_after(tmp_path, 3)
    assert [line.step for line in MatrixStatisticsTail(path).new()] == [3]


def test_long_runs_have_lines_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_statistics, "EVERY", 20)
    for steps in (1, 19, 500, 100_000, 10_000_000):
        lines = steps // matrix_statistics.every(steps) + 2
        assert lines <= matrix_statistics.MOST_LINES + 2 and matrix_statistics.due(1, steps) and matrix_statistics.due(steps, steps)  # fmt: skip
