"""Runs that learn preferences or a reward: their numbers against transformers and torch, and a kill at any point."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import GPT2LMHeadModel

from tests.training.answer_helpers import begin, model_folder, settings, write_pairs, write_prompts
from tests.training.run_helpers import contents, leftovers, lines, work
from tui_llm.llm.data import answer_rows
from tui_llm.llm.data.answer_rows import RowOrder
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.training.plan import launch
from tui_llm.training.run import batch
from tui_llm.training.run.run import ANSWERS, Run
from tui_llm.training.run.settings import learning_rate
from tui_llm.training.worker.preference import PreferenceTrainer
from tui_llm.training.worker.reward import Group, RewardTrainer


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


def _corpus(folder: Path, objective: str) -> Path:
    return write_pairs(folder / "pairs.jsonl") if objective == "preference" else write_prompts(folder / "prompts.txt")


@pytest.mark.parametrize(
    ("objective", "more"),
    [
        # dropout: as a run of an earlier version can have it
        ("preference", {"dropout": 0.1, "grad_accumulation_steps": 2, "sft_weight": 0.5, "length_normalized": "on"}),
        ("reward", {"batch_size": 2, "updates": 2, "advantage": "std", "average": "token"}),
    ],
)
def test_a_killed_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, model: Path, objective: str, more: dict[str, object]
) -> None:
    corpus = _corpus(tmp_path, objective)
    unbroken, broken = (begin(name, model, corpus, objective, **more) for name in ("unbroken", "broken"))
    assert work(unbroken) == 0, unbroken.log_path.read_text()
    corpus.unlink()  # the run has what it needs
    for moment in (("half a line", 3), ("half the weights", 3), ("half a line", 8)):
        assert work(broken, moment) == -9, broken.log_path.read_text()
    assert work(broken) == 0, broken.log_path.read_text()

    def measured(run: Run) -> list[dict[str, object]]:
        timed = ("time", "tokens_per_second", "memory_bytes", "machine")
        return [{name: value for name, value in line.items() if name not in timed} for line in lines(run.metrics_path)]

    assert measured(broken) == measured(unbroken) and len(measured(broken)) == 12
    assert lines(broken.samples_path) == lines(unbroken.samples_path)
    assert contents(broken.checkpoints()[-1][1]) == contents(unbroken.checkpoints()[-1][1])
    assert contents(broken.checkpoints()[-1][1])["model.safetensors"] != (model / "model.safetensors").read_bytes()
    assert batch.newest(broken) == batch.newest(unbroken)
    assert lines(broken.matrices_path) == lines(unbroken.matrices_path)
    recorded = lines(broken.matrices_path)[-1]
    squares = sum(value**2 for values in recorded["gradient"].values() for value in values)
    assert math.sqrt(squares) == pytest.approx(lines(broken.metrics_path)[recorded["step"] - 1]["grad_norm"], rel=1e-5)
    assert len(recorded["activation"]) == broken.config().settings.layers
    assert leftovers(broken.path) == []


# ── preferences ──────────────────────────────────────────────────────────────────────────────────────────────


def _log_probability(model: GPT2LMHeadModel, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """ln π of an answer by transformers."""
    ids = torch.tensor([prompt + answer])
    logs = model(ids).logits[0, :-1].double().log_softmax(-1)
    return logs[range(len(ids[0]) - 1), ids[0, 1:]][len(prompt) - 1 :].sum()


def test_the_losses_are_those_of_transformers_and_torch(tmp_path: Path, model: Path) -> None:
    run = begin("run", model, write_pairs(tmp_path / "pairs.jsonl"), "preference", beta=0.3, clip=0.0, steps=6)
    assert work(run) == 0, run.log_path.read_text()
    found = lines(run.metrics_path)
    assert math.isclose(found[0]["loss"], math.log(2), abs_tol=1e-9) and found[0]["margin"] == 0.0
    assert found[0]["agreement"] == 0.0  # no margin is above 0 yet

    s = run.config().settings
    rows = answer_rows.load(run.path / ANSWERS, 257)
    train, held_out = rows.split(s.validation_fraction, s.seed)
    order = RowOrder(train, s.seed)
    policy, reference = (GPT2LMHeadModel.from_pretrained(model).eval() for _ in range(2))
    decayed = [p for p in policy.parameters() if p.dim() >= 2]
    others = [p for p in policy.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": s.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(s.beta1, s.beta2))

    def margins(pairs: list[int]) -> torch.Tensor:
        """(B, 2): the rewards."""
        made = []
        for at in pairs:
            prompt, sides = rows.prompts.row(at), (rows.chosen.row(at), rows.rejected.row(at))
            with torch.no_grad():
                theirs = [_log_probability(reference, prompt, side) for side in sides]
            ours = [_log_probability(policy, prompt, side) for side in sides]
            made.append(torch.stack([s.beta * (a - b) for a, b in zip(ours, theirs, strict=True)]))
        return torch.stack(made)

    for step in range(1, 7):
        pairs = [order.row(place) for place in range((step - 1) * s.batch_size, step * s.batch_size)]
        rewards = margins(pairs)
        shown = rewards.detach()
        loss = -F.logsigmoid(rewards[:, 0] - rewards[:, 1]).mean()
        line = found[step - 1]
        assert line["loss"] == pytest.approx(float(loss.detach()), abs=2e-5)
        assert line["chosen_reward"] == pytest.approx(float(shown[:, 0].mean()), abs=2e-4)
        assert line["margin"] == pytest.approx(float((shown[:, 0] - shown[:, 1]).mean()), abs=2e-4)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(s, step)
        optimizer.step()
    with torch.no_grad():
        rewards = margins(held_out.tolist())
        at = [(rows.prompts.row(i), side.row(i)) for i in held_out.tolist() for side in (rows.chosen, rows.rejected)]
        kl = []
        for prompt, answer in at:
            ids = torch.tensor([prompt + answer])
            ours, theirs = (
                m(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1) for m in (policy, reference)
            )
            kl += F.kl_div(theirs, ours, reduction="none", log_target=True).sum(-1).tolist()
    last = found[-1]
    assert last["val_margin"] == pytest.approx(float((rewards[:, 0] - rewards[:, 1]).mean()), abs=2e-4)
    assert last["val_agreement"] == float((rewards[:, 0] > rewards[:, 1]).double().mean())
    assert last["val_kl"] == pytest.approx(math.fsum(kl) / len(kl), rel=0.01, abs=1e-6)


def test_the_next_batch_shows_the_pairs_with_their_losses(tmp_path: Path, model: Path) -> None:
    run = begin("run", model, write_pairs(tmp_path / "pairs.jsonl"), "preference", steps=4)
    assert work(run) == 0
    shown = batch.newest(run)
    assert shown is not None and shown.step == 5 and shown.objective == "preference" and len(shown.shown) == 8
    s, rows = run.config().settings, answer_rows.load(run.path / ANSWERS, 257)
    first = RowOrder(rows.split(s.validation_fraction, s.seed)[0], s.seed).row(4 * s.batch_size)
    policy = GPT2LMHeadModel.from_pretrained(run.checkpoints()[-1][1]).eval()
    for row, side in zip(shown.shown[:2], (rows.chosen, rows.rejected), strict=True):
        assert [at.target.id for at in row.positions] == side.row(first)
        assert row.label.endswith(f"line {rows.lines[first]}") and row.prompt == byte_level().decode(
            rows.prompts.row(first)
        )
        with torch.no_grad():
            total = _log_probability(policy, rows.prompts.row(first), side.row(first))
        assert sum(at.loss for at in row.positions) == pytest.approx(-float(total), abs=1e-3)


# ── rewards ──────────────────────────────────────────────────────────────────────────────────────────────────


def _trainer(folder: Path, model: Path, **fields: object) -> RewardTrainer:
    run = begin("by-hand", model, write_prompts(folder / "prompts.txt"), "reward", **fields)
    rows = answer_rows.load(run.path / ANSWERS, 257)
    own, start = checkpoint.load(model).requires_grad_(True), checkpoint.load(model)
    return RewardTrainer(own, start, rows, byte_level(), run.config().settings, torch.device("cpu"))


def test_a_step_follows_the_policy_gradient_of_the_drawn_answers(tmp_path: Path, model: Path) -> None:
    trainer = _trainer(tmp_path, model, batch_size=2, clip=0.0, kl_weight=0.0)
    groups = trainer._groups(1, 0)
    assert any(group.learns for group in groups) and all(len(group.answers) == 4 for group in groups)
    policy = GPT2LMHeadModel.from_pretrained(model).eval()
    loss = torch.zeros((), dtype=torch.float64)
    for group in groups:
        mean = sum(group.rewards) / 4
        for answer, reward in zip(group.answers, group.rewards, strict=True):
            text = byte_level().decode([id for id in answer if id != 256])
            assert reward == text.lower().count("e")
            loss = loss - (reward - mean) * _log_probability(policy, group.prompt, answer)
    (loss / (8 * trainer.settings.answer_tokens)).backward()  # type: ignore[no-untyped-call]
    found = trainer._backward(1)
    assert found == -trainer.measured["reward"] == -sum(sum(group.rewards) for group in groups) / 8
    wanted = policy.transformer.wte.weight.grad
    assert wanted is not None and float(wanted.abs().max()) > 0
    torch.testing.assert_close(trainer.model.tokens.weight.grad, wanted, atol=1e-6, rtol=1e-3)


def _moved(trainer: RewardTrainer, model: Path) -> tuple[GPT2LMHeadModel, GPT2LMHeadModel]:
    """Moves the trainer's weights away from the start model; returns the same policy and reference of transformers."""
    policy, reference = (GPT2LMHeadModel.from_pretrained(model).eval() for _ in range(2))
    shift = torch.linspace(-8, 8, 16)
    with torch.no_grad():
        trainer.model.norm.bias.add_(shift)
        policy.transformer.ln_f.bias.add_(shift)
    return policy, reference


def _kl(policy: GPT2LMHeadModel, reference: GPT2LMHeadModel, groups: list[Group]) -> tuple[float, int]:
    """The sum of k3 over the answers' tokens by transformers, and the number of these tokens."""
    kl, length = 0.0, 0
    for group in groups:
        for answer in group.answers:
            ids, at = torch.tensor([group.prompt + answer]), slice(len(group.prompt) - 1, -1)
            with torch.no_grad():
                ours, theirs = (one(ids).logits[0, at].double().log_softmax(-1) for one in (policy, reference))
            d = (theirs - ours)[range(len(answer)), answer]
            kl, length = kl + float((d.exp() - d - 1).sum()), length + len(answer)
    return kl, length


def test_the_recorded_loss_counts_the_kl_of_whole_answers(tmp_path: Path, model: Path) -> None:
    trainer = _trainer(tmp_path, model, batch_size=2, kl_weight=0.5)
    policy, reference = _moved(trainer, model)
    groups = trainer._groups(1, 0)
    kl, length = _kl(policy, reference, groups)
    scores = [reward for group in groups for reward in group.rewards]
    wanted = 0.5 * kl / len(scores) - sum(scores) / len(scores)
    assert kl > 1 and trainer.measure_batch(0)["loss"] == pytest.approx(wanted, abs=1e-4)
    assert trainer._backward(1) == pytest.approx(wanted, abs=1e-4)
    assert trainer.measured["kl"] == pytest.approx(kl / length, abs=1e-4)


def test_the_recorded_kl_is_that_of_all_drawn_tokens_of_the_step(tmp_path: Path, model: Path) -> None:
    """Two batches with answers of 1 or 2 tokens, and of up to 6: not the mean of the two batches' means."""
    trainer = _trainer(tmp_path, model, batch_size=1, grad_accumulation_steps=2)
    policy, reference = _moved(trainer, model)
    cut = []
    for part, lengths in enumerate(((1, 2, 1, 1), (6, 5, 6, 6))):
        (group,) = trainer._groups(1, part)
        answers = [answer[:count] for answer, count in zip(group.answers, lengths, strict=True)]
        cut.append(Group(group.prompt, answers, [1.0, 0.0, 0.0, 0.0]))
    trainer._groups = lambda number, part: cut[part : part + 1]  # type: ignore[method-assign]
    (first, few), (second, many) = (_kl(policy, reference, [group]) for group in cut)
    trainer._backward(1)
    assert trainer.measured["kl"] == pytest.approx((first + second) / (few + many), abs=1e-4)
    assert abs((first / few + second / many) / 2 - (first + second) / (few + many)) > 1e-3


@pytest.mark.parametrize(
    ("prompts", "products", "longest", "tokens"),
    [
        ("aa", None, 1024, 10 + 8 * 5),  # one prompt for all answers of the batch: once
        ("a", None, 1024, 10 + 4 * 5),
        ("ab", None, 1024, 8 * 15),  # two prompts in a batch: in each row
        ("aa", None, 10, 8 * 15),  # too long for one row
        ("aa", torch.float32, 1024, 8 * 15),
    ],
)
def test_a_step_counts_the_tokens_that_it_computes(
    prompts: str, products: torch.dtype | None, longest: int, tokens: int, tmp_path: Path, model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    trainer = _trainer(tmp_path, model, batch_size=len(prompts), grad_accumulation_steps=3, updates=2)
    trainer.products = products  # None on a GPU
    monkeypatch.setattr("tui_llm.llm.learn.policy_gradient.SHARED", longest)
    answers = [[97 + row] * 6 for row in range(4)]
    groups = [Group([ord(prompt)] * 10, answers, [0.0, 1.0, 2.0, 3.0]) for prompt in prompts]
    trainer._groups = lambda number, part: groups  # type: ignore[method-assign]
    fed, features = list[int](), GPT.features

    def counted(self: GPT, ids: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
        fed.append(ids.numel())
        return features(self, ids, *more, **named)

    monkeypatch.setattr(GPT, "features", counted)
    trainer._update(1, 1e-3)
    assert trainer.step_tokens == 3 * tokens
    passes = 2 + trainer.settings.updates  # ln π and ln ref before the updates
    assert sum(fed) == trainer.step_tokens * passes


def test_the_losses_of_drawn_answers_are_at_their_temperature_and_say_so(tmp_path: Path, model: Path) -> None:
    run = begin("run", model, write_prompts(tmp_path / "prompts.txt"), "reward", temperature=0.6, steps=4)
    assert work(run) == 0, run.log_path.read_text()
    shown = batch.newest(run)
    assert shown is not None and shown.temperature == 0.6 and shown.at_temperature == " at T = 0.6"
    assert next(iter(shown.table()))[-1] == "loss at T = 0.6"
    policy = GPT2LMHeadModel.from_pretrained(run.checkpoints()[-1][1]).eval()
    for row in shown.shown:
        prompt, answer = byte_level().encode(row.prompt), [at.target.id for at in row.positions]
        with torch.no_grad():
            logits = policy(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        wanted = F.cross_entropy(logits / 0.6, torch.tensor(answer), reduction="none")
        assert [at.loss for at in row.positions] == pytest.approx(wanted.tolist(), abs=1e-3)


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize(("advantage", "average"), [("mean", "constant"), ("std", "sequence"), ("std", "token")])
def test_the_average_over_tokens_is_that_of_the_step_however_it_is_split(
    tmp_path: Path, model: Path, advantage: str, average: str, batches: int
) -> None:
    """Dr. GRPO's, GRPO's and DAPO's formulas on answers of 1 to 6 tokens, with transformers' ln π."""
    trainer = _trainer(tmp_path, model, batch_size=2 // batches, grad_accumulation_steps=batches, clip=0.0,
                       kl_weight=0.0, advantage=advantage, average=average)  # fmt: skip
    whole = [group for part in range(batches) for group in trainer._groups(1, part)]
    lengths = ((1, 3, 6, 2), (5, 6, 6, 4))
    scores = ((1.0, 0.0, 0.0, 3.0), (0.0, 2.0, 1.0, 0.0))
    cut = [
        Group(group.prompt, [answer[:count] for answer, count in zip(group.answers, counts, strict=True)], list(own))
        for group, counts, own in zip(whole, lengths, scores, strict=True)
    ]
    trainer._groups = lambda number, part: cut[part::batches]  # type: ignore[method-assign]
    policy = GPT2LMHeadModel.from_pretrained(model).eval()
    loss = torch.zeros((), dtype=torch.float64)
    tokens = sum(len(answer) for group in cut for answer in group.answers)
    for group in cut:
        rewards = torch.tensor(group.rewards, dtype=torch.float64)
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4 if advantage == "std" else 1.0)
        for answer, own in zip(group.answers, advantages, strict=True):
            size = {"constant": 8 * trainer.settings.answer_tokens, "sequence": 8 * len(answer), "token": tokens}[average]  # fmt: skip
            loss = loss - own * _log_probability(policy, group.prompt, answer) / size
    loss.backward()  # type: ignore[no-untyped-call]
    trainer._backward(1)
    wanted = policy.transformer.wte.weight.grad
    assert wanted is not None and float(wanted.abs().max()) > 0
    torch.testing.assert_close(trainer.model.tokens.weight.grad, wanted, atol=1e-6, rtol=1e-3)


def test_a_run_of_before_there_was_a_choice_reads_as_constant(tmp_path: Path, model: Path) -> None:
    run = begin("run", model, write_prompts(tmp_path / "prompts.txt"), "reward", average="sequence")
    path = run.path / "config.json"
    raw = json.loads(path.read_text())
    assert raw["settings"].pop("average") == "sequence"
    path.write_text(json.dumps(raw))
    assert run.config().settings.average == "constant"


def test_an_answer_that_ended_is_learned_with_its_one_end_token_and_scored_without_it(
    tmp_path: Path, model: Path
) -> None:
    trainer = _trainer(tmp_path, model, samples=16, reward="length:6")
    with torch.no_grad():  # the end token becomes likely
        trainer.model.norm.bias.add_(20 * trainer.model.head.weight[256])
    (group, *_) = trainer._groups(1, 0)
    ended = [answer for answer in group.answers if 256 in answer]
    assert ended and all(answer.count(256) == 1 and answer[-1] == 256 for answer in ended)
    for answer, score in zip(group.answers, group.rewards, strict=True):
        text = byte_level().decode([id for id in answer if id != 256]).strip()
        assert score == pytest.approx(max(0.0, 1 - abs(len(text) - 6) / 6))


def test_equal_rewards_change_nothing(tmp_path: Path, model: Path) -> None:
    run = begin("run", model, None, "reward", reward="contains:giraffe", steps=3)
    assert work(run) == 0, run.log_path.read_text()
    for line in lines(run.metrics_path):
        assert (line["grad_norm"], line["reward"], line["reward_std"]) == (0.0, 0.0, 0.0)
    made, began = (checkpoint.load(folder).state_dict() for folder in (run.checkpoints()[-1][1], model))
    assert all(torch.equal(made[name], began[name]) for name in began)


def test_what_is_shown_of_the_next_batch_is_what_the_next_step_draws(tmp_path: Path, model: Path) -> None:
    trainer = _trainer(tmp_path, model, batch_size=2)
    steps = trainer.steps()
    next(steps)
    shown = trainer.measure_batch(1)
    groups = trainer._groups(2, 0)
    answers = [answer for group in groups for answer in group.answers]
    assert [row["ids"][1:] for row in shown["shown"]] == answers
    metric = next(steps)
    assert metric.reward is not None and shown["loss"] == pytest.approx(metric.loss, abs=1e-6)


def test_a_preference_trainer_changes_nothing_when_it_evaluates(tmp_path: Path, model: Path) -> None:
    s = settings(model, "preference")
    begin("run", model, write_pairs(tmp_path / "pairs.jsonl"), "preference")
    from tui_llm.training.run.run import find

    rows = answer_rows.load(find("run").path / ANSWERS, 257)
    trainer = PreferenceTrainer(
        checkpoint.load(model), checkpoint.load(model), rows, byte_level(), s, torch.device("cpu")
    )
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    assert trainer.validate() == pytest.approx(math.log(2), abs=1e-9)
    assert trainer.measured["val_kl"] == 0.0 and trainer.measured["val_margin"] == 0.0
    trainer.measure_batch(0)
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.model.state_dict().items())


def test_a_run_whose_rewards_were_all_equal_is_continued(tmp_path: Path, model: Path) -> None:
    """Muon has no state before its first update, and there was none."""
    run = begin("run", model, None, "reward", reward="contains:giraffe", steps=2, optimizer="muon")
    assert work(run) == 0, run.log_path.read_text()
    launch.rewrite(run, dataclasses.replace(run.config().settings, steps=4))
    assert work(run) == 0, run.log_path.read_text()
    assert [line["step"] for line in lines(run.metrics_path)] == [1, 2, 3, 4]
    assert "damaged" not in run.log_path.read_text()
