"""The training loop, against torch's optimizers and schedules and transformers' GPT-2."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2LMHeadModel

from tests.training.run_helpers import TINY, words
from tui_llm.common.errors import UserError
from tui_llm.llm.data import corpus
from tui_llm.llm.model import checkpoint, cpu_reader, device, torch_private
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.training.plan.fields import resolve_settings
from tui_llm.training.run.changes import LearningRateChange
from tui_llm.training.run.settings import (
    PRECISIONS,
    PRESETS,
    SCHEDULES,
    TrainingSettings,
    from_fields,
    learning_rate,
    problems,
)
from tui_llm.training.worker import checkpoints, loop, matrix_recorder
from tui_llm.training.worker.loop import Diverged, Trainer
from tui_llm.training.worker.matrix_recorder import MatrixRecorder
from tui_llm.training.worker.optimizers import momentum

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "trains_in_bfloat16", lambda _: False)


def trainer(tmp_path: Path, **fields: object) -> Trainer:
    settings = from_fields(dict(fields), TINY)
    text = tmp_path / "text.txt"
    text.write_text(words(2000))
    data = corpus.load([text], byte_level(), settings.validation_fraction, block_size=settings.block_size)
    torch.manual_seed(settings.seed)
    model = GPT(
        GPTConfig(
            257,
            settings.block_size,
            settings.layers,
            settings.heads,
            settings.width,
            dropout=settings.dropout,
        )
    )
    return Trainer(model, data, settings, CPU)


@pytest.mark.parametrize("measures", [False, True])
def test_tokens_per_second_are_the_steps_tokens_in_the_time_of_the_step_alone(
    tmp_path: Path, measures: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on in these calls only: what is measured beside the training and the evaluation take no time."""
    ours, now = trainer(tmp_path, grad_accumulation_steps=3, eval_every=2), [0.0]
    ours.matrices = MatrixRecorder(ours.model, ours.settings.steps) if measures else None
    calls: Counter[str] = Counter()
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    for module in (loop, matrix_recorder):
        monkeypatch.setattr(module, "time", clock)

    def takes(owner: object, name: str, seconds: float) -> None:
        plain = getattr(owner, name)

        def made(*args: object) -> object:
            now[0] += seconds
            calls[name] += 1
            return plain(*args)

        monkeypatch.setattr(owner, name, made)

    takes(ours, "_backward", 2.0)
    takes(ours, "_clip", 0.5)
    takes(ours, "validate", 100.0)
    if ours.matrices is not None:
        takes(ours.matrices, "before", 7.0)
        takes(ours.matrices, "after", 11.0)
    steps = ours.steps()
    assert [next(steps).tokens_per_second for _ in range(5)] == pytest.approx([4 * 16 * 3 / 2.5] * 5)
    assert calls["_backward"] == calls["_clip"] == 5 and calls["validate"] == 3  # the first one, and each second
    assert (calls["before"] == calls["after"] > 0) is measures


@pytest.mark.parametrize(
    "fields", [{}, {"grad_accumulation_steps": 3, "layers": 2, "clip": 0.3, "weight_decay": 0.5}, {"clip": 0.0}]
)
def test_it_trains_as_a_plain_loop_does(tmp_path: Path, fields: dict[str, object]) -> None:
    ours = trainer(tmp_path, **fields)
    s = ours.settings
    checkpoint.save(ours.model, tmp_path / "start")
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "start", attn_pdrop=0, embd_pdrop=0, resid_pdrop=0).train()
    optimizer = torch.optim.AdamW(
        [{"params": [p for n, p in theirs.named_parameters() if p.dim() > 1]},
         {"params": [p for n, p in theirs.named_parameters() if p.dim() == 1], "weight_decay": 0.0}],
        lr=s.learning_rate, betas=(s.beta1, s.beta2), weight_decay=s.weight_decay, fused=False, foreach=False,
    )  # fmt: skip
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / s.warmup_steps, 1.0, s.warmup_steps - 1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, s.steps - s.warmup_steps, s.min_learning_rate)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], [s.warmup_steps - 1])

    made = list(ours.steps())
    assert [step.step for step in made] == list(range(1, s.steps + 1))
    for number, step in enumerate(made):
        parts = [
            ours.batches.batch(number * s.grad_accumulation_steps + part) for part in range(s.grad_accumulation_steps)
        ]
        x, y = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
        loss = torch.nn.functional.cross_entropy(theirs(x).logits.flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), s.clip or 1e30)
        assert step.lr == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        assert step.loss == pytest.approx(loss.item(), rel=1e-4)
        assert step.grad_norm == pytest.approx(norm.item(), rel=1e-3)
        optimizer.step()
        schedule.step()
    assert made[-1].loss < made[0].loss - 1  # the loss decreases

    theirs.eval()
    x, y = ours.validation
    with torch.no_grad():
        held_out = torch.nn.functional.cross_entropy(theirs(x).logits.flatten(0, 1), y.flatten()).item()
    assert made[-1].val_loss == pytest.approx(held_out, rel=1e-4)
    assert [step.step for step in made if step.val_loss is not None] == [1, 10, 20, 30]
    assert made[0].loss == pytest.approx(math.log(257), abs=0.1)  # the loss of a uniform prediction


def test_muon_moves_the_matrices_and_adamw_the_rest(tmp_path: Path) -> None:
    ours = trainer(tmp_path, optimizer="muon", clip=0.0, layers=2)
    s, before = ours.settings, {n: p.detach().clone() for n, p in ours.model.weights()}
    muon, adamw = ours.optimizers
    names = {id(p): n for n, p in ours.model.weights()}
    theirs = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert theirs == {f"blocks.{i}.{n}.weight" for i in (0, 1)
                      for n in ("attention.qkv", "attention.out", "mlp.up", "mlp.down")}  # fmt: skip
    rest = {names[id(p)]: group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    assert set(rest) == set(before) - theirs
    assert {n for n, decay in rest.items() if decay} == {"tokens.weight", "positions.weight"}

    lr = next(ours.steps()).lr
    for name, p in ours.model.weights():
        moved, gradient = p.detach() - before[name] * (1 - lr * (s.weight_decay if p.dim() == 2 else 0.0)), p.grad
        if name not in theirs:  # Adam's first step is the sign of the gradient
            known = gradient.abs() > 1e-5
            assert torch.allclose(moved[known], -lr * gradient.sign()[known], rtol=2e-2, atol=1e-6), name
            continue
        # Newton–Schulz in bf16 approximates U Vᵀ of the gradient's SVD, with singular values near 1, in the directions
        # above bf16's rounding (2⁻⁸) relative to the largest. The others are noise that depends on the kernel.
        u, sizes, vt = torch.linalg.svd(gradient, full_matrices=False)
        known = sizes > 2**-8 * sizes[0]
        scaled = moved / (-lr * 0.2 * math.sqrt(max(p.shape)))
        assert torch.linalg.svdvals(scaled).max() < 1.4, name
        along = u[:, known].T @ scaled @ vt[known].T
        assert known.sum() > 8 and 0.6 < along.diagonal().min() <= along.diagonal().max() < 1.3, name
        assert along.diagonal().norm() / along.norm() > 0.999, name


def test_muon_learns(tmp_path: Path) -> None:
    made = list(trainer(tmp_path, optimizer="muon").steps())
    assert made[-1].loss < made[0].loss - 1


def test_evaluating_does_not_change_the_training(tmp_path: Path) -> None:
    often = [s.loss for s in trainer(tmp_path, eval_every=1, dropout=0.2).steps()]
    seldom = [s.loss for s in trainer(tmp_path, eval_every=30, dropout=0.2).steps()]
    assert often == seldom


@pytest.mark.parametrize("warm", [0, 1, 10])
def test_the_schedule_is_linear_then_half_a_cosine(warm: int) -> None:
    s = dataclasses.replace(TINY, learning_rate=1.0, min_learning_rate=0.2, warmup_steps=warm, steps=warm + 40)
    assert [learning_rate(s, step) for step in range(1, warm + 1)] == pytest.approx(
        [k / warm for k in range(1, warm + 1)]
    )
    after = np.array([learning_rate(s, warm + k) for k in range(1, 41)])
    assert after == pytest.approx(
        0.2 + 0.8 * np.cos(np.pi * np.arange(1, 41) / 80) ** 2
    )  # ½ (1 + cos x) = cos² (x ÷ 2)
    assert learning_rate(s, s.steps + 1000) == pytest.approx(0.2)


@pytest.mark.parametrize("warm", [0, 10])
def test_wsd_is_linear_then_flat_then_linear(warm: int) -> None:
    s = dataclasses.replace(TINY, schedule="wsd", decay_fraction=0.25, learning_rate=1.0, min_learning_rate=0.2,
                            warmup_steps=warm, steps=80)  # fmt: skip
    rates = [learning_rate(s, step) for step in range(1, 81)]
    assert rates[:warm] == pytest.approx([k / 10 for k in range(1, warm + 1)])
    assert rates[warm:60] == [1.0] * (60 - warm)
    assert rates[60:] == pytest.approx([1 - 0.8 * k / 20 for k in range(1, 21)])
    assert learning_rate(s, 1000) == pytest.approx(0.2)
    # More steps do not change the stable phase, which is the purpose of WSD.
    longer = dataclasses.replace(s, steps=160)
    assert [learning_rate(longer, step) for step in range(1, 61)] == rates[:60]
    never = dataclasses.replace(s, decay_fraction=0.0)
    assert [learning_rate(never, step) for step in (60, 80, 100)] == [1.0] * 3
    always = dataclasses.replace(s, decay_fraction=1.0)
    assert learning_rate(always, warm + 1) == pytest.approx(1 - 0.8 / (80 - warm))


def test_a_schedule_that_is_all_warm_up_or_upside_down_stays_in_bounds() -> None:
    for schedule in SCHEDULES:
        s = dataclasses.replace(
            TINY, learning_rate=1e-3, min_learning_rate=1.0, warmup_steps=100, steps=10, schedule=schedule
        )
        assert all(0 < learning_rate(s, step) <= 1e-3 for step in range(1, 200))


@pytest.mark.parametrize("rate", [{}, {"learning_rate": "5e-3"}], ids=["preset's rate", "own rate"])
def test_a_short_run_of_a_preset_reaches_its_rate_and_its_momentum(rate: dict[str, str]) -> None:
    settings = resolve_settings({"steps": "100", **rate}, PRESETS["modern"])[0]
    assert settings.learning_rate == float(rate.get("learning_rate", PRESETS["modern"].learning_rate))
    assert learning_rate(settings, 10) == settings.learning_rate > learning_rate(settings, 9)
    assert momentum(settings, 20) < momentum(settings, 21) == pytest.approx(0.95)
    given = resolve_settings({"steps": "100", "warmup_steps": "50", **rate}, PRESETS["modern"])[0]
    assert given.warmup_steps == 50


def test_a_non_finite_loss_ends_the_run_before_the_weights_change(tmp_path: Path) -> None:
    ours = trainer(tmp_path)
    before: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        ours.model.norm.bias[0] = math.inf

    def steps() -> Iterator[object]:
        before.update({n: p.detach().clone() for n, p in ours.model.named_parameters()})
        yield from ours.steps(done=4)

    with pytest.raises(Diverged, match=r"at step 5 .*lower learning rate"):
        list(steps())
    assert all(torch.equal(p, before[n]) for n, p in ours.model.named_parameters())
    with pytest.raises(Diverged, match=r"norm\.bias.*after step 4"):
        ours.check(4)


def test_an_exploding_update_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="lower learning rate than"):
        list(trainer(tmp_path, learning_rate=1e6, warmup_steps=0, weight_decay=1.0, steps=200).steps())


def test_a_changed_learning_rate_is_the_one_to_lower(tmp_path: Path) -> None:
    ours = trainer(tmp_path, weight_decay=1.0, steps=200)
    ours.changes = [LearningRateChange(3, 1e6, 1)]
    with pytest.raises(Diverged, match=r"was changed to 1e\+06: change it to a lower one"):
        list(ours.steps())


@pytest.mark.parametrize("can", [True, False])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_bfloat16_is_used_where_the_processor_multiplies_in_it(
    can: bool, precision: str, dropout: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch_private, "multiplies_in_bfloat16", lambda: can)
    monkeypatch.setattr(cpu_reader, "cpu_name", lambda: "AMD EPYC 9R14")
    monkeypatch.setattr(loop, "trains_in_bfloat16", device.trains_in_bfloat16)
    ours = trainer(tmp_path, precision=precision, dropout=dropout)
    bfloat16 = precision == "bf16" or (can and precision == "auto")
    assert ours.precision == ("bf16 matmuls, fp32 weights" if bfloat16 else "fp32")

    products = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
                products.add(args[-1].dtype)
            return func(*args, **(kwargs or {}))

    with Watch():
        step = next(ours.steps())
    assert products == {torch.bfloat16 if bfloat16 else torch.float32}
    assert step.loss == pytest.approx(math.log(257), abs=0.1)
    assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in ours.model.parameters())
    assert not device.trains_in_bfloat16(torch.device("mps"))


@pytest.mark.parametrize(
    ("name", "instructions", "amx", "faster"),
    [
        ("AMD EPYC 9R14", True, False, True),
        ("AMD EPYC 7R13", False, False, False),
        ("Intel(R) Xeon(R) Processor", True, False, False),
        ("Intel(R) Xeon(R) Platinum 8488C", True, True, True),
        ("Intel(R) Xeon(R) Platinum 8488C", False, True, False),  # ATEN_CPU_CAPABILITY forbids it
    ],
)
def test_intels_processors_need_amx_for_fast_bfloat16(
    name: str, instructions: bool, amx: bool, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_private, "multiplies_in_bfloat16", lambda: instructions)
    monkeypatch.setattr(torch_private, "has_amx", lambda: amx)
    monkeypatch.setattr(cpu_reader, "cpu_name", lambda: name)
    assert device.trains_in_bfloat16(CPU) == faster


def test_bfloat16_learns_as_float32_does(tmp_path: Path) -> None:
    low, exact = ([s.loss for s in trainer(tmp_path, precision=p, layers=2).steps()] for p in ("bf16", "fp32"))
    assert low != exact and np.allclose(low, exact, rtol=0.02)


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("layers", -1), ("seed", -1), ("seed", 2**64), ("learning_rate", math.nan), ("learning_rate", -1),
     ("dropout", 1.0), ("validation_fraction", 1), ("validation_fraction", 0), ("beta1", 1.0), ("warmup_steps", -1), ("width", 15),
     ("block_size", 1), ("clip", math.inf), ("schedule", "step"), ("optimizer", "sgd"), ("precision", "fp16"), ("decay_fraction", 1.5), ("decay_fraction", math.nan), ("sample_tokens", -1), ("steps", 1e400), ("steps", "2.5"), ("seed", None)],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(UserError, match=field.replace("_", " ")):
        from_fields({field: value}, TINY)


def test_unknown_settings_are_refused_and_presets_are_whole() -> None:
    with pytest.raises(UserError, match="no training setting 'colour'"):
        from_fields({"colour": 1})
    for preset in PRESETS.values():
        assert problems(preset) == {} and from_fields(dataclasses.asdict(preset)) == preset
    assert from_fields({"steps": "12", "learning_rate": "1e-3"}) == TrainingSettings(steps=12, learning_rate=1e-3)


@pytest.mark.parametrize("fields", [{}, {"grad_accumulation_steps": 2, "layers": 2}])
def test_the_step_without_autograd_continues_the_checkpoint_of_one_with_it(
    tmp_path: Path, fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = trainer(tmp_path, **fields)
    assert ours.fast_step is not None
    with monkeypatch.context() as patch:  # as before flat parameters, and as with DDP
        patch.setattr(loop.FlatParameters, "fits", lambda _: False)
        theirs = trainer(tmp_path, **fields)
    assert theirs.flat is None and theirs.fast_step is None
    steps = theirs.steps()
    for _ in range(5):
        next(steps)
    ours.model.load_state_dict(theirs.model.state_dict())
    checkpoints.restore(ours, {name: tensor.clone() for name, tensor in checkpoints.state_of(theirs).items()})
    for mine, other in zip(ours.steps(5), steps, strict=True):
        assert mine.step == other.step and mine.loss == pytest.approx(other.loss, rel=1e-4)
        assert mine.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)
    assert checkpoints.state_of(ours).keys() == checkpoints.state_of(theirs).keys()
    assert float(checkpoints.state_of(ours)["tokens.weight.step"]) == ours.settings.steps


def test_frozen_parameters_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = GPT.reset

    def freeze(model: GPT) -> None:
        plain(model)
        model.positions.weight.requires_grad_(False)

    monkeypatch.setattr(GPT, "reset", freeze)
    ours = trainer(tmp_path, steps=3)
    before = {n: p.detach().clone() for n, p in ours.model.weights()}
    list(ours.steps())
    assert {n for n, p in ours.model.weights() if torch.equal(p, before[n])} == {"positions.weight"}
