"""Cautious decay, momentum warm-up, the average of the weights and shuffled documents, against torch's own optimizers and closed
forms; runs with them are resumed and replayed bit for bit."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel

from tests.training.run_helpers import TINY, contents, losses, make, work
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.data.corpus import Corpus
from tui_llm.llm.data.examples import Batches, document_starts
from tui_llm.llm.model import cautious, checkpoint, native_training
from tui_llm.llm.model.flat import FlatAdamW, FlatParameters
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.native_training_step import NativeTrainingStep
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import branch
from tui_llm.training.plan.cost import cost, shape
from tui_llm.training.plan.follow import progress
from tui_llm.training.run.metrics import Metric
from tui_llm.training.run.settings import from_fields
from tui_llm.training.worker.loop import Trainer
from tui_llm.training.worker.optimizers import WeightAverage, momentum
from tui_llm.training.worker.replay import StepReplay

MUON: dict[str, Any] = {"optimizer": "muon", "momentum_warmup_steps": 12, "layers": 2}
ALL: dict[str, Any] = {**MUON, "cautious_decay": "on", "ema_decay": 0.9, "shuffle_documents": "on"}
ADAMW: dict[str, Any] = {"cautious_decay": "on", "ema_decay": 0.8, "width": 32}
CONFIG = GPTConfig(vocabulary=37, context=16, layers=2, heads=2, width=32)
RATE, DECAY, BETAS = 1e-2, 0.3, (0.8, 0.95)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Documents of different lengths."""
    path = tmp_path / "text.txt"
    path.write_text("<|endoftext|>".join(f"document {n}: " + "the cat sat on a mat. " * (n % 7) for n in range(200)))
    return path


def model() -> GPT:
    torch.manual_seed(1)
    gpt = GPT(CONFIG)
    with torch.no_grad():
        for _, p in gpt.weights():
            p.normal_(std=0.1)
    return gpt


# ── cautious weight decay ────────────────────────────────────────────────────────────────────────────────────────────


def updates(kind: str, gpt: GPT) -> Any:
    """(the optimizer's step, what takes the gradients first) of each implementation."""
    if kind == "single":
        made = cautious.CautiousAdamW(gpt.decay_groups(DECAY), RATE, BETAS, fused=True)
        return made, lambda: None
    flat = FlatParameters(gpt)
    if kind == "C":
        if not NativeTrainingStep.fits(gpt):
            pytest.skip("no compiler here, or not this processor")
        NativeTrainingStep(gpt, flat, torch.float32)
        assert flat.library is not None
    return FlatAdamW(flat, DECAY, RATE, BETAS, cautious=True), flat.collect


@pytest.mark.parametrize("kind", ["single", "flat", "C"])
def test_cautious_adamw_is_the_papers_formula(kind: str) -> None:
    """x − η (u + λ [u x ≥ 0] x), with u of torch's AdamW in float64."""
    gpt = model()
    exact = copy.deepcopy(gpt).double()
    other = torch.optim.AdamW(exact.decay_groups(0.0), lr=RATE, betas=BETAS)
    ours, collect = updates(kind, gpt)
    decayed = {name for name, p in gpt.weights() if p.dim() > 1}
    kept = unsure = 0
    weights = dict(gpt.weights())
    for _ in range(6):
        for (_, mine), (_, their) in zip(gpt.weights(), exact.weights(), strict=True):
            g = torch.randn_like(mine)
            mine.grad, their.grad = g, g.double()
        before = {name: p.detach().clone() for name, p in exact.weights()}
        collect()
        ours.step()
        other.step()
        for name, p in exact.weights():
            if name in decayed:
                update = before[name] - p.detach()
                along = update * before[name] >= 0
                # In float32 so small an update may be rounded to either sign: then this weight goes on as ours does.
                close = update.abs() < 1e-6 * RATE
                unsure += int(close.sum())
                kept += int((~along).sum())
                p.data -= RATE * DECAY * along * before[name]
                p.data = torch.where(close, weights[name].detach().double(), p.data)
        for (name, mine), (_, their) in zip(gpt.weights(), exact.weights(), strict=True):
            torch.testing.assert_close(mine.double(), their, rtol=1e-5, atol=1e-6, msg=name)
    assert kept > 1000 and unsure < 10  # weights that were not decayed; they are few whose sign is not known


def test_cautious_muon_is_torchs_muon_with_another_decay() -> None:
    torch.manual_seed(2)
    start = torch.randn(24, 16) * 0.1
    ours, theirs, plain = (torch.nn.Parameter(start.clone()) for _ in range(3))
    options: Any = {"lr": RATE, "adjust_lr_fn": "match_rms_adamw"}
    mine = cautious.CautiousMuon([ours], weight_decay=DECAY, **options)
    same = cautious.CautiousMuon([plain], weight_decay=0.0, **options)
    other = torch.optim.Muon([theirs], weight_decay=0.0, **options)
    for _ in range(4):
        g, before = torch.randn(24, 16), ours.detach().clone()
        theirs.data.copy_(before)
        for parameter in (ours, theirs, plain):
            parameter.grad = g.clone()
        plain.data.copy_(before)
        for optimizer in (mine, other, same):
            optimizer.step()
        assert torch.equal(plain, theirs)
        along = (before - theirs) * before >= 0
        assert 0 < int(along.sum()) < along.numel()
        torch.testing.assert_close(ours.detach(), theirs - RATE * DECAY * along * before, rtol=1e-5, atol=1e-7)


def test_the_momentum_rises_from_085_to_095() -> None:
    settings = from_fields({"optimizer": "muon", "momentum_warmup_steps": 300}, TINY)
    assert [round(momentum(settings, step), 12) for step in (1, 151, 301, 9999)] == [0.85, 0.9, 0.95, 0.95]
    assert momentum(dataclasses.replace(settings, momentum_warmup_steps=0), 1) == 0.95


# ── the average of the weights ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("flat", [False, True])
def test_the_average_is_torchs_averaged_model(flat: bool) -> None:
    gpt = model()
    buffer = FlatParameters(gpt) if flat else None
    average = WeightAverage(gpt, 0.7, buffer)

    def mean(old: torch.Tensor, new: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        beta = min(0.7, (1 + int(count)) / (10 + int(count)))
        return beta * old + (1 - beta) * new

    theirs = AveragedModel(gpt, avg_fn=mean)
    theirs.update_parameters(gpt)  # the first one copies the weights
    for _ in range(30):
        with torch.no_grad():
            for _, p in gpt.weights():
                p.add_(torch.randn_like(p))
        average.update()
        theirs.update_parameters(gpt)
    trained = {name: p.detach().clone() for name, p in gpt.weights()}
    with average.in_model(), average.in_model():
        for (name, mine), (_, their) in zip(gpt.weights(), theirs.module.weights(), strict=True):
            torch.testing.assert_close(mine, their, rtol=1e-5, atol=1e-5, msg=name)
    assert all(torch.equal(p, trained[name]) for name, p in gpt.weights())


def test_a_checkpoint_is_the_average_and_keeps_the_trained_weights(text: Path) -> None:
    run, plain = make("run", text, ema_decay=0.9, precision="fp32"), make("plain", text, precision="fp32")
    assert work(run) == work(plain) == 0, run.log_path.read_text()
    # the training is the same; what is evaluated is not
    assert [row[:4] for row in losses(run)] == [row[:4] for row in losses(plain)]
    assert [row[4] for row in losses(run) if row[4]] != [row[4] for row in losses(plain) if row[4]]
    (_, averaged), (_, trained) = run.checkpoints()[-1], plain.checkpoints()[-1]
    state = load_file(averaged / "optimizer.safetensors")
    wanted = dict(checkpoint.load(trained).weights())
    mine = dict(checkpoint.load(averaged).weights())
    assert all(torch.equal(state[f"{name}.trained"], p) for name, p in wanted.items())
    assert not any(torch.equal(mine[name], p) for name, p in wanted.items())
    # the logged validation loss is the folder's model's
    replay = StepReplay(run, 30, lambda _: None)
    replay.trainer.average = None
    replay.trainer.model.load_state_dict(checkpoint.load(averaged).state_dict())
    assert replay.trainer.validate() == pytest.approx(losses(run)[-1][4], rel=1e-6)
    # a branch can begin to have an average
    made = branch.create(plain, 28, "made", {"ema_decay": "0.9"})
    assert work(made) == 0, made.log_path.read_text()
    assert [row[:4] for row in losses(made)] == [row[:4] for row in losses(plain)[28:]]


# ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.integers(1, 30), min_size=3, max_size=30), st.integers(2, 9), st.integers(0, 99))
def test_shuffled_documents_stay_whole_and_an_epoch_has_each_token_once(
    lengths: list[int], block: int, seed: int
) -> None:
    """Each id is its place + 1; 0 separates."""
    ids = np.arange(1, sum(lengths) + 1, dtype=np.uint32)
    ids[np.cumsum(lengths)[:-1] - 1] = 0
    if len(ids) <= block + 1:
        return
    batches = Batches(ids, block, 1, seed, separator=0)
    rows = [batches.places(n)[0] for n in range(2 * batches.blocks)]
    for epoch in (rows[: batches.blocks], rows[batches.blocks :]):
        inputs = np.concatenate([row[:-1] for row in epoch])
        assert len(set(inputs.tolist())) == len(inputs) == batches.blocks * block
    starts = set(document_starts(ids, 0).tolist())
    for row in rows:
        for here, there in itertools.pairwise(row.tolist()):
            assert there == here + 1 or (ids[here] == 0 and there in starts)
    fresh = Batches(ids, block, 1, seed, separator=0)
    assert np.array_equal(fresh.places(batches.blocks)[0], rows[batches.blocks])
    x, y = fresh.batch(0)
    assert x[0].tolist() == ids[rows[0][:-1]].tolist() and y[0].tolist() == ids[rows[0][1:]].tolist()


def test_the_order_of_documents_differs_between_epochs() -> None:
    ids = np.tile(np.array([1, 2, 3, 0], dtype=np.uint16), 100)
    batches = Batches(ids, 8, 1, 1, separator=0)
    after = [
        {pair for row in range(n, n + batches.blocks) for pair in itertools.pairwise(batches.places(row)[0].tolist()) if pair[1] != pair[0] + 1}
        for n in (0, batches.blocks)
    ]  # fmt: skip
    assert len(after[0] & after[1]) < 0.2 * len(after[0])


def test_a_text_without_documents_is_declined(text: Path, tmp_path: Path) -> None:
    plain = text.read_text().replace("<|endoftext|>", "\n")
    path = tmp_path / "text.txt"
    for tokenizer in ("byte", "char"):
        path.write_text(plain)
        with pytest.raises(UserError, match="no documents to shuffle"):
            make(tokenizer, path, shuffle_documents="on", tokenizer=tokenizer, sample_prompt="the")
        assert not (paths.runs_dir() / tokenizer).exists()
    path.write_text(
        plain[:99] + "\n<|endoftext|>\n" + plain[99:]
    )  # what only the worker knows: how many are not held out
    run = make("two", path, shuffle_documents="on", sample_prompt="the")
    assert work(run) == 1 and "no documents to shuffle: fewer than three" in run.status().message


def test_the_held_out_loss_of_an_average_says_so(text: Path) -> None:
    metric = Metric(3, 2.5, 1e-3, 1.0, 100.0, 2.25)
    assert "held out 2.2500" in progress(make("plain", text), metric)
    assert "held out (EMA) 2.2500" in progress(make("averaged", text, ema_decay=0.9), metric)


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fields", [{**ALL, "dropout": 0.1, "grad_accumulation_steps": 2}, ADAMW])
def test_a_run_with_the_switches_is_resumed_and_replayed_bit_for_bit(text: Path, fields: dict[str, Any]) -> None:
    unbroken, broken = make("unbroken", text, **fields), make("broken", text, **fields)
    assert work(unbroken) == 0, unbroken.log_path.read_text()
    if fields == ADAMW and native_training.library() is not None:
        assert "step in C" in unbroken.status().precision
    assert work(broken, ("half a line", 14)) == -9
    assert broken.checkpoints()
    assert work(broken) == 0, broken.log_path.read_text()
    assert losses(broken) == losses(unbroken)
    assert contents(broken.checkpoints()[-1][1]) == contents(unbroken.checkpoints()[-1][1])
    settings = broken.config().settings
    assert all(getattr(settings, name) == value for name, value in fields.items())
    logged = losses(broken)
    for step in (30,):
        said: list[dict[str, Any]] = []
        replay = StepReplay(broken, step, said.append)
        found = json.loads(json.dumps(replay.measure()))
        assert (found["loss"], found["grad_norm"]) == (logged[step - 1][1], logged[step - 1][3])
        assert len(found["rows"]) == settings.batch_size * settings.grad_accumulation_steps
        for row in found["rows"]:
            assert row["parts"][0][0] == 0
        data = text.read_bytes()
        if settings.shuffle_documents == "on":
            assert any(len(row["parts"]) > 1 for row in found["rows"])
        for row in found["rows"]:  # each part begins where the corpus has it
            for position, (_, offset, *_) in row["parts"]:
                token = bytes.fromhex(found["bytes"][str(row["ids"][position])])
                assert data[offset:].startswith(token)


def test_switches_that_contradict_are_named() -> None:
    for fields, why in (
        ({"momentum_warmup_steps": 9}, "are muon's"),
        ({"cautious_decay": "on", "weight_decay": 0}, "weight decay is 0"),
        ({"cautious_decay": "maybe"}, "cautious decay is 'maybe'"),
        ({"ema_decay": 1.0}, "ema decay is 1"),
        ({"objective": "preference", "ema_decay": 0.9}, "ema decay has no effect"),
        ({"attention_only": "on", "arch": "relu2"}, "attention only has no MLP; leave one out"),
        ({"arch": "rope,rope"}, "stands twice"),
    ):
        with pytest.raises(UserError, match=why):
            from_fields(fields, TINY)


def test_the_average_is_counted_in_the_memory() -> None:
    plain, averaged = (cost(s, shape(s, 257)) for s in (TINY, from_fields({"ema_decay": 0.9}, TINY)))
    assert averaged.state_bytes - plain.state_bytes == 4 * plain.parameters


def test_the_average_is_in_place_of_the_weights_only_where_it_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exchange copies all weights twice."""
    ids = np.random.default_rng(1).integers(0, 37, 2000).astype(np.uint16)
    settings = dataclasses.replace(TINY, ema_decay=0.9, steps=21)
    trainer = Trainer(GPT(CONFIG), Corpus(ids, ids[:200], 1.0, 0.0, ""), settings, torch.device("cpu"))
    exchanged: list[int] = []
    usual = WeightAverage._exchange

    def exchange(average: WeightAverage) -> None:
        exchanged.append(trainer.done or 0)
        usual(average)

    monkeypatch.setattr(WeightAverage, "_exchange", exchange)
    evaluated = [metric.step for metric in trainer.steps() if metric.val_loss is not None]
    assert evaluated == [1, 10, 20, 21] and exchanged == [1, 1, 10, 10, 20, 20, 21, 21]
