"""Policy gradient: advantages, loss and gradient against TRL's GRPOTrainer, closed forms in float64 and autograd; draws of a
group against single draws; undo bit for bit."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.policy import ADVANTAGES, AVERAGES, PolicyRecipe, PolicySettings
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.learn.answer_batch import padded
from tui_llm.llm.learn.instruct import IGNORE
from tui_llm.llm.learn.policy_gradient import (
    answer_log_probabilities,
    group_advantages,
    kl_estimate,
    policy_loss,
    policy_step,
)
from tui_llm.llm.learn.undoable import UndoableCopy, set_learning_rate
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.predict.distribution import process
from tui_llm.llm.predict.draw_group import draw_group, row_seed
from tui_llm.llm.predict.generate import generate, uniform

K, T, LENGTHS = 4, 5, (5, 3, 4, 1)
MASK = torch.tensor([[t < n for t in range(T)] for n in LENGTHS])
ADVANTAGE = torch.tensor([0.75, -0.25, -0.9, 0.4], dtype=torch.float64)

# `GRPOTrainer._compute_loss` of trl 1.16.0 (torch 2.13.0) on `table`, with ε = 0.2, max_completion_length = 6 and use_bias_correction_kl = False:
# (loss_type, β): loss, norm of the gradient on ln π, its first element
TRL = {
    ("sequence", 0.0): (0.027848910737013982, 0.19439443201497522, -0.029280945309188653),  # grpo
    ("sequence", 0.04): (0.03063662161787699, 0.1942464858380427, -0.030798583000722638),
    ("token", 0.0): (0.06335650557121232, 0.20256120091303545, -0.04504760816798254),  # bnpo
    ("token", 0.04): (0.06651488568945665, 0.20430472306241748, -0.04738243538572713),
    ("constant", 0.0): (0.03431810718440668, 0.10972065049456087, -0.024400787757657208),  # dr_grpo
    ("constant", 0.04): (0.03602889641512236, 0.11066505832547613, -0.02566548583393553),
}
TRL_KL, TRL_CLIPPED = 0.07895950295610847, 0.07692307978868484
TRL_STD = [0.0, -0.7070567741866096, -0.7070567741866096, 1.4141135483732192]  # rewards 1, 0, 0, 3


def table(phase: float) -> Tensor:
    rows = [[-1.5 + math.sin(phase + 1.3 * k + 0.7 * t) for t in range(T)] for k in range(K)]
    return torch.tensor(rows, dtype=torch.float64)


def tiny(seed: int = 1) -> GPT:
    torch.manual_seed(seed)
    model = GPT(GPTConfig(vocabulary=13, context=16, layers=2, heads=2, width=8)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


PROMPT = (1, 2, 3)
ROWS = [(PROMPT, (4, 5, 6)), (PROMPT, (7,)), (PROMPT, (4, 4, 4, 12)), (PROMPT, (5, 6))]


@pytest.mark.parametrize("average, beta", TRL)
def test_loss_and_gradient_equal_those_of_trl(average: str, beta: float) -> None:
    logs = table(0.0).requires_grad_(True)
    settings = PolicySettings(average=average, clip=0.2, beta=beta)
    terms = policy_loss(logs, table(0.25), table(0.6), ADVANTAGE, MASK, settings, longest=6)
    terms.loss.backward()
    assert logs.grad is not None
    loss, norm, first = TRL[average, beta]
    assert terms.loss.item() == pytest.approx(loss, rel=1e-12)
    assert logs.grad.norm().item() == pytest.approx(norm, rel=1e-12)
    assert logs.grad[0, 0].item() == pytest.approx(first, rel=1e-12)
    assert not logs.grad[~MASK].any()
    assert terms.kl.item() == pytest.approx(TRL_KL, rel=1e-6) and terms.answer_kl.item() == pytest.approx(
        TRL_KL * 13 / 4
    )
    assert terms.clipped.item() == pytest.approx(TRL_CLIPPED)


def test_advantages() -> None:
    rewards = torch.tensor([1.0, 0, 0, 3], dtype=torch.float64)
    assert group_advantages(rewards).tolist() == [0, -1, -1, 2]
    assert group_advantages(rewards, "std").tolist() == pytest.approx(TRL_STD, rel=1e-7)  # theirs is partly float32
    for kind in ADVANTAGES:
        assert (
            group_advantages(torch.full((2, 8), 0.1), kind).tolist() == [[0.0] * 8] * 2
        )  # exactly, although 0.1 rounds
        with pytest.raises(UserError, match="not a finite number"):
            group_advantages(torch.tensor([1.0, math.nan]), kind)


@pytest.mark.parametrize("average", AVERAGES)
def test_the_gradient_on_the_logits_is_the_advantage_times_p_minus_y(average: str) -> None:
    torch.manual_seed(2)
    logits = torch.randn(K, T, 11, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(0, 11, (K, T))
    logs = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    reference = table(0.3)
    settings = PolicySettings(average=average, beta=0.3)
    policy_loss(logs, logs.detach(), reference, ADVANTAGE, MASK, settings).loss.backward()
    lengths = torch.tensor(LENGTHS, dtype=torch.float64)
    weight = {
        "sequence": 1 / (K * lengths),
        "token": torch.full((K,), 1 / lengths.sum().item(), dtype=torch.float64),
        "constant": torch.full((K,), 1 / (K * T), dtype=torch.float64),
    }[average]
    # d/d ln π of −A r + β kl at r = 1 is −A + β (1 − ref ÷ π); that of ln π on the logits is y − p
    slope = -ADVANTAGE[:, None] + 0.3 * (1 - (reference - logs.detach()).exp())
    y = torch.nn.functional.one_hot(ids, 11)
    wanted = (slope * weight[:, None] * MASK)[..., None] * (y - logits.detach().softmax(-1))
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, wanted, atol=1e-12, rtol=1e-9)


def test_autograd_agrees_with_finite_differences() -> None:
    def loss(logs: Tensor) -> Tensor:
        return policy_loss(logs, table(0.25), table(0.6), ADVANTAGE, MASK, PolicySettings(beta=0.5)).loss

    assert torch.autograd.gradcheck(loss, table(0.0).requires_grad_(True))


def test_the_kl_estimate_has_the_mean_of_the_divergence() -> None:
    torch.manual_seed(3)
    ours, theirs = (torch.randn(50, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    exact = (ours.exp() * (ours - theirs)).sum()
    torch.testing.assert_close((ours.exp() * kl_estimate(ours, theirs)).sum(), exact, atol=1e-12, rtol=1e-12)
    assert (kl_estimate(ours, theirs) >= 0).all() and kl_estimate(ours, ours).eq(0).all()


@pytest.mark.parametrize("average", AVERAGES)
def test_what_a_step_descends_in_expectation_is_not_the_recorded_objective(average: str) -> None:
    """All answers of 3 tokens over 2, enumerated, from policies that depend on the tokens before."""
    torch.manual_seed(4)
    answers = torch.tensor(list(itertools.product(range(2), repeat=3)))
    weights = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)  # a row for each beginning of an answer
    ours = weights.log_softmax(-1)
    theirs = (weights.detach() + torch.randn(7, 2, dtype=torch.float64)).log_softmax(-1)
    at = torch.stack([torch.zeros(8, dtype=torch.long), 1 + answers[:, 0], 3 + 2 * answers[:, 0] + answers[:, 1]], 1)
    logs, reference = ours[at, answers], theirs[at, answers]
    p, rewards, beta = logs.sum(-1).exp(), answers.double().sum(-1) ** 2, 0.7
    advantages = rewards - (p.detach() * rewards).sum()
    found, recorded = torch.zeros_like(weights), 0.0
    for k in range(8):
        terms = policy_loss(
            logs[k : k + 1], logs[k : k + 1].detach(), reference[k : k + 1], advantages[k : k + 1],
            torch.ones(1, 3, dtype=torch.bool), PolicySettings(average=average, beta=beta),
        )  # fmt: skip
        found += p[k].detach() * torch.autograd.grad(terms.loss, weights, retain_graph=True)[0]
        recorded += float(p[k].detach() * (beta * terms.answer_kl - rewards[k]))

    def divergence(of: Tensor, to: Tensor) -> Tensor:
        """KL(of ‖ to) after the tokens before, summed over an answer, the mean over the answers."""
        each = F.kl_div(to, of, reduction="none", log_target=True).sum(-1)
        return (p.detach()[:, None] * each[at]).sum()

    expected = (p * rewards).sum()
    descended = torch.autograd.grad((beta * divergence(theirs, ours) - expected) / 3, weights, retain_graph=True)[0]
    torch.testing.assert_close(found, descended, atol=1e-12, rtol=1e-9)
    whole = F.kl_div(
        reference.sum(-1), logs.sum(-1), reduction="sum", log_target=True
    )  # of the distributions of answers
    assert recorded == pytest.approx(float((beta * whole - expected).detach()), abs=1e-12)
    gradient = torch.autograd.grad(beta * whole - expected, weights)[0]
    assert F.cosine_similarity(gradient.flatten(), found.flatten(), 0) < 0.999


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("ratio", [0.3, 0.79, 0.81, 1.0, 1.19, 1.21, 3.0])
def test_the_clip_holds_only_a_ratio_that_moved_in_the_advantage_s_direction(advantage: float, ratio: float) -> None:
    """Schulman et al. 2017, equation 7 and figure 1, for ε = 0.2."""
    log = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    settings, wanted = PolicySettings(beta=0.0), torch.tensor([advantage], dtype=torch.float64)
    terms = policy_loss(log, torch.zeros_like(log), None, wanted, mask, settings)
    terms.loss.backward()
    held = ratio > 1.2 if advantage > 0 else ratio < 0.8
    assert log.grad is not None and float(log.grad) == pytest.approx(0.0 if held else -advantage * ratio)
    assert float(terms.clipped) == held


def test_log_probabilities_are_those_of_each_answer_alone() -> None:
    model, size = tiny(), 13
    inputs, targets = padded(ROWS)
    logs = answer_log_probabilities(model, inputs, targets, size, 0.7)
    for (prompt, answer), row, kept in zip(ROWS, logs, targets != IGNORE, strict=True):
        alone = (model(torch.tensor([[*prompt, *answer]]))[0, :, :size] / 0.7).log_softmax(-1)
        wanted = [alone[len(prompt) - 1 + at, id] for at, id in enumerate(answer)]
        torch.testing.assert_close(row[kept], torch.stack(wanted), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prompts", [(PROMPT,) * 4, (PROMPT, PROMPT, (9, 9), PROMPT)])
def test_a_shared_prompt_gives_the_same_gradient(prompts: tuple[tuple[int, ...], ...], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    inputs, targets = padded([(prompt, answer) for prompt, (_, answer) in zip(prompts, ROWS, strict=True)])
    found = []
    for shared in (0, 1024):
        monkeypatch.setattr("tui_llm.llm.learn.policy_gradient.SHARED", shared)
        model = tiny().double().requires_grad_(True)
        logs = answer_log_probabilities(model, inputs, targets, 13)
        (logs * torch.arange(4)[:, None]).sum().backward()
        found.append((logs.detach(), [p.grad for p in model.parameters()]))
    torch.testing.assert_close(*found, atol=1e-12, rtol=1e-9)


def test_a_step_raises_the_answers_with_positive_advantage() -> None:
    origin = tiny()
    model = copy.deepcopy(origin).requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)
    made = policy_step(model, optimizer, ROWS, [1, -1, 0.5, -0.5], origin, PolicySettings(), 13, updates=2)
    changes = [sum(after) - sum(before) for before, after in zip(made.before, made.after, strict=True)]
    assert changes[0] > 0 > changes[1] and [len(row) for row in made.before] == [3, 1, 4, 2]
    assert made.kl == pytest.approx(0, abs=1e-9) and made.gradient_norm > 0
    again = policy_step(model, optimizer, ROWS, [1, -1, 0.5, -0.5], origin, PolicySettings(), 13)
    assert again.kl > 0 and again.before[0] == pytest.approx(made.after[0], abs=1e-5)


@pytest.mark.parametrize("size", [20.0, 0.05], ids=["clipped", "not clipped"])
def test_a_step_is_adamw_s_after_torch_s_clip(size: float) -> None:
    """Two updates on `policy_loss` of each answer alone; their weights, and the norm of the second one. In float64: AdamW turns
    the rounding of gradients that should be 0, those of the keys' biases, into steps."""
    origin, reference, settings = tiny().double(), tiny(2).double(), PolicySettings()
    advantages = [size, -size, size / 2, -size / 2]
    model, mine = (copy.deepcopy(origin).requires_grad_(True) for _ in range(2))
    optimizers = [torch.optim.AdamW(one.parameters(), lr=1e-3, weight_decay=0.1) for one in (model, mine)]
    made = policy_step(model, optimizers[0], ROWS, advantages, reference, settings, 13, updates=2)

    _, targets = padded(ROWS)

    def logs(policy: GPT) -> Tensor:
        found = torch.zeros(targets.shape, dtype=torch.float64)
        for number, (prompt, answer) in enumerate(ROWS):
            alone = policy(torch.tensor([[*prompt, *answer]]))[0, :, :13].log_softmax(-1)
            for at, id in enumerate(answer, len(prompt) - 1):
                found[number, at] = alone[at, id]
        return found

    with torch.no_grad():
        old, theirs = logs(origin), logs(reference)
    for _ in range(2):
        optimizers[1].zero_grad()
        loss = policy_loss(logs(mine), old, theirs, torch.tensor(advantages), targets != IGNORE, settings).loss
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(mine.parameters(), 1.0))
        optimizers[1].step()
    assert (norm > 1) == (size > 1)
    assert made.gradient_norm == pytest.approx(norm, rel=1e-6)
    assert made.loss == pytest.approx(float(loss.detach()), rel=1e-6, abs=1e-9)
    for made_here, by_hand in zip(model.parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(made_here, by_hand, atol=1e-8, rtol=1e-6)


def test_a_step_that_is_not_finite_is_one_line() -> None:
    model = tiny().requires_grad_(True)
    with torch.no_grad():
        model.positions.weight[0] = math.nan
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(UserError, match="no longer finite"):
        policy_step(model, optimizer, ROWS, [1, -1, 0, 0], tiny(), PolicySettings(), 13)


# ── draws ──


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_each_row_is_the_single_draw_of_its_seed(temperature: float) -> None:
    model, settings = tiny(), SamplerSettings(temperature)
    seeds = [row_seed(5, row) for row in range(6)]
    drawn = draw_group(model, PROMPT, seeds, size=12, count=8, temperature=temperature, ends=lambda id: id == 9)

    def logits(ids: list[int]) -> Tensor:
        with torch.no_grad():
            return model(torch.tensor([ids]))[0, -1, :12]

    for answer in drawn:
        single = generate(logits, PROMPT, settings, seed=answer.seed, count=8, bytes_of=lambda id: b"", ends=lambda id: id == 9)  # fmt: skip
        wanted = [step.id for step in single]
        if 9 in wanted:
            wanted = wanted[: wanted.index(9) + 1]
        if list(answer.ids) == wanted:
            assert answer.ended == (wanted[-1] == 9)
            continue
        # A pass over many rows rounds differently: then u is at the edge between two tokens.
        same = next(n for n, (a, b) in enumerate(zip(answer.ids, wanted, strict=False)) if a != b)
        processed = process(logits([*PROMPT, *wanted[:same]]), settings)
        edges = processed.probability.cumsum()
        assert min(abs(edges - uniform(answer.seed, same))) < 1e-5
    assert len({answer.ids for answer in drawn}) > 1


def test_draws_need_a_prompt_and_room() -> None:
    with pytest.raises(UserError, match="the prompt is empty"):
        draw_group(tiny(), [], [1], size=13, count=2)
    with pytest.raises(UserError, match="the context is full"):
        draw_group(tiny(), [1] * 12, [1], size=13, count=6)
    assert len(draw_group(tiny(), [1] * 12, [1, 2], size=13, count=5)[0].ids) == 5
    with pytest.raises(Overtaken):
        draw_group(tiny(), [1], [1], size=13, count=5, overtaken=lambda: True)
    broken = tiny()
    with torch.no_grad():
        broken.positions.weight[0] = math.nan
    with pytest.raises(UserError, match="NaN"):
        draw_group(broken, [1], [1], size=13, count=5)


# ── undo ──


@pytest.mark.parametrize("budget", [0, 40_000, 1 << 30])
def test_undo_gives_back_the_weights_bit_for_bit(budget: int) -> None:
    origin = tiny()
    before = [p.clone() for p in origin.parameters()]
    trained = UndoableCopy(origin, budget)

    def step(model: GPT, optimizer: torch.optim.Optimizer) -> None:
        set_learning_rate(optimizer, 1e-2)
        policy_step(model, optimizer, ROWS, [1, -1, 0.5, -0.5], origin, PolicySettings(), 13)

    known = []
    for _ in range(5):
        trained.take(step)
        known.append([p.detach().clone() for p in trained.model.parameters()])
    for at in (4, 2, 1):
        trained.undo(at)
        assert trained.count == at
        assert all(map(torch.equal, trained.model.parameters(), known[at - 1]))
    trained.take(step)
    assert all(map(torch.equal, trained.model.parameters(), known[1]))
    trained.undo(0)
    assert trained.model is origin and all(map(torch.equal, origin.parameters(), before))


def test_a_failed_step_changes_nothing() -> None:
    origin = tiny()
    trained = UndoableCopy(origin)
    trained.take(lambda model, optimizer: model.positions.weight.data.add_(1))
    weights = [p.detach().clone() for p in trained.model.parameters()]

    def bad(model: GPT, optimizer: torch.optim.Optimizer) -> None:
        model.positions.weight.data.zero_()
        raise UserError("no")

    def full(model: GPT, optimizer: torch.optim.Optimizer) -> None:
        raise torch.OutOfMemoryError("out of memory")

    for step, part in ((bad, "no"), (full, "not enough memory")):
        with pytest.raises(UserError, match=part):
            trained.take(step)
        trained.undo(1)
        trained.take(lambda model, optimizer: None)
        assert all(map(torch.equal, trained.model.parameters(), weights))
        trained.undo(1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PolicySettings(advantage="median"),
        lambda: PolicySettings(average="x"),
        lambda: PolicySettings(clip=0),
        lambda: PolicySettings(clip=math.nan),
        lambda: PolicySettings(beta=-1),
        lambda: PolicySettings(beta=math.nan),
        lambda: PolicySettings(temperature=0),
        lambda: PolicySettings(temperature=math.nan),
        lambda: PolicyRecipe(samples=1),
        lambda: PolicyRecipe(tokens=0),
        lambda: PolicyRecipe(updates=99),
        lambda: PolicyRecipe(learning_rate=math.nan),
    ],
)
def test_settings_out_of_range(make: object) -> None:
    with pytest.raises(UserError):
        make()  # type: ignore[operator]
