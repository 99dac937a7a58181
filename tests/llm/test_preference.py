"""DPO: loss, rewards and gradient against the closed form in float64, autograd and TRL."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tui_llm.common.errors import UserError
from tui_llm.facts.preference import DPO, RECIPE, DPOSettings, PreferenceRecipe
from tui_llm.llm.learn.answer_batch import token_log_probabilities
from tui_llm.llm.learn.preference import (
    EncodedPair,
    answer_lengths,
    divergence,
    encoded,
    log_probabilities,
    padded_pairs,
    preference_loss,
    reference_log_probabilities,
)
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig

SIZE = 11  # the embedding has a padding row more
PAIRS = [
    EncodedPair((1, 2, 3), (4, 5), (6, 7, 8, 9)),
    EncodedPair((5,), (1, 2, 3), (10,)),
    EncodedPair((9, 8, 7, 6), (0, 0, 1), (0, 0, 2)),
]


def tiny(seed: int = 1, dtype: torch.dtype = torch.float64) -> GPT:
    torch.manual_seed(seed)
    model = GPT(GPTConfig(vocabulary=SIZE + 1, context=8, layers=2, heads=2, width=8)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)  # far from uniform predictions
    return model


def written_out(model: GPT, prompt: tuple[int, ...], answer: tuple[int, ...]) -> Tensor:
    """ln π of one answer from whole logits, without padding."""
    logs = model(torch.tensor([[*prompt, *answer]]))[0, :, :SIZE].log_softmax(-1)
    return sum((logs[len(prompt) - 1 + i, id] for i, id in enumerate(answer)), torch.zeros((), dtype=logs.dtype))


def ours(model: GPT, reference: Tensor, pairs: list[EncodedPair], settings: DPOSettings):  # type: ignore[no-untyped-def]
    inputs, targets = padded_pairs(pairs)
    policy = log_probabilities(token_log_probabilities(model, inputs, targets, SIZE))
    return preference_loss(policy, reference, answer_lengths(targets), settings)


def test_log_probabilities_of_a_padded_batch_are_those_of_each_answer_alone() -> None:
    model = tiny()
    inputs, targets = padded_pairs(PAIRS)
    found = log_probabilities(token_log_probabilities(model, inputs, targets, SIZE))
    expected = torch.stack([
        torch.stack([written_out(model, pair.prompt, answer) for pair, answer in zip(PAIRS, side, strict=True)])
        for side in ([p.chosen for p in PAIRS], [p.rejected for p in PAIRS])
    ])  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(reference_log_probabilities(model, PAIRS, SIZE, batch=2), expected, rtol=0, atol=1e-12)
    assert answer_lengths(targets).tolist() == [[2, 3, 3], [4, 1, 3]]


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_formulas_in_words_give_the_numbers(normalized: bool, weight: float) -> None:
    settings, (logs, refs, lengths) = DPOSettings(0.2, normalized, weight), torch.tensor([[-7.0, -9], [-8, -6], [2, 3]])
    terms = preference_loss(logs[:, None], refs[:, None], lengths[:, None], settings)

    def value(formula: str, **known: float) -> float:
        words = {"ln σ(margin)": "margin", "ln π(chosen)": "log", "ln π": "log", "ln ref": "ref", "its tokens": "tokens",
                 "β": "0.2 *", "÷": "/", "·": "*", "−": "-"}  # fmt: skip
        for word, code in words.items():
            formula = formula.replace(word, code)
        return float(eval(formula, {}, known))

    rewards = [
        value(settings.reward_formula(), log=float(log), ref=float(ref), tokens=float(length))
        for log, ref, length in zip(logs, refs, lengths, strict=True)
    ]
    assert terms.rewards[:, 0].tolist() == pytest.approx(rewards, rel=1e-6)
    margin = float(F.logsigmoid(torch.tensor(rewards[0] - rewards[1])))
    loss = value(settings.loss_formula, margin=margin, log=-7.0, tokens=2.0)
    assert float(terms.losses) == pytest.approx(loss, rel=1e-6)
    even = preference_loss(logs[:, None], logs[:, None], lengths[:, None], settings)
    wanted = settings.loss_at_start
    assert wanted is None if weight else wanted == pytest.approx(float(even.losses), rel=1e-6)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_only_the_difference_is_said_to_count_where_both_may_fall_at_no_loss(normalized: bool, weight: float) -> None:
    settings = DPOSettings(0.2, normalized, weight)
    logs, refs, lengths = torch.tensor([[-7.0], [-8]]), torch.tensor([[-9.0], [-6]]), torch.tensor([[2], [3]])
    fallen = logs - (lengths if normalized else 1)  # both log-ratios fall by 1, per token if they are
    before, after = (float(preference_loss(one, refs, lengths, settings).losses) for one in (logs, fallen))
    assert (before == pytest.approx(after)) == ("counts only the difference" in settings.both_fell) == (not weight)
    assert ("log-ratios per token" in settings.both_fell) == normalized
    assert ("0.7 · (−ln π(chosen) ÷ its tokens)" in settings.both_fell) == bool(weight)


def test_the_first_loss_of_a_fresh_copy_is_ln_2() -> None:
    model = tiny(dtype=torch.float32)
    inputs, targets = padded_pairs(PAIRS)
    with torch.no_grad():
        reference = log_probabilities(token_log_probabilities(model, inputs, targets, SIZE))
    terms = ours(copy.deepcopy(model), reference, PAIRS, DPOSettings(beta=0.3))
    assert terms.losses.tolist() == [math.log(2)] * 3
    assert terms.rewards.tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_loss_rewards_and_gradient_are_the_closed_form_s(normalized: bool, weight: float) -> None:
    """∇loss = −β σ(−margin) [∇ ln π(w) − ∇ ln π(l)] − α ∇ ln π(w) ÷ |w|, each ∇ ln π by autograd on one answer."""
    model, reference_model, settings = tiny(1), tiny(2), DPOSettings(0.2, normalized, weight)
    reference = reference_log_probabilities(reference_model, PAIRS, SIZE)
    terms = ours(model, reference, PAIRS, settings)
    terms.losses.mean().backward()
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for index, pair in enumerate(PAIRS):
        sides = []
        for answer in (pair.chosen, pair.rejected):
            model_copy = copy.deepcopy(model)
            model_copy.zero_grad()
            log = written_out(model_copy, pair.prompt, answer)
            log.backward()
            share = len(answer) if normalized else 1
            ref = float(written_out(reference_model, pair.prompt, answer).detach())
            reward = 0.2 * (float(log.detach()) - ref) / share
            sides.append((float(log.detach()), reward, share, [p.grad for p in model_copy.parameters()]))
        (log_w, reward_w, share_w, grad_w), (_, reward_l, share_l, grad_l) = sides
        margin = reward_w - reward_l
        loss = math.log1p(math.exp(-margin)) - weight * log_w / len(pair.chosen)
        assert terms.losses[index].item() == pytest.approx(loss, abs=1e-12)
        assert terms.rewards[:, index].tolist() == pytest.approx([reward_w, reward_l], abs=1e-12)
        assert terms.margins[index].item() == pytest.approx(margin, abs=1e-12)
        pull = -0.2 / (1 + math.exp(margin))
        for total, w, lost in zip(expected, grad_w, grad_l, strict=True):
            assert w is not None and lost is not None
            total += (pull * (w / share_w - lost / share_l) - weight * w / len(pair.chosen)) / len(PAIRS)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


def test_padding_and_other_rows_get_no_gradient() -> None:
    """The gradient of a batch is the mean of its pairs' gradients, so that padding has none."""
    model, reference = tiny(1), torch.zeros(2, 3, dtype=torch.float64)
    ours(model, reference, PAIRS, DPOSettings()).losses.mean().backward()
    together = [p.grad for p in model.parameters()]
    alone = copy.deepcopy(model)
    alone.zero_grad()
    for pair in PAIRS:
        (ours(alone, reference[:, :1], [pair], DPOSettings()).losses.mean() / 3).backward()
    for one, other in zip(together, alone.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-9, atol=1e-13)


# β; ln π of chosen and rejected, ln ref of both; loss, rewards: DPOTrainer.dpo_loss of TRL 0.21.0, float64 (dev/LOG.md)
TRL = [
    (0.1, (-10.0, -12.0, -11.0, -11.0), 0.5981388693815918, 0.1, -0.1),
    (0.1, (-34.25, -20.5, -30.0, -28.75), 1.501929081345373, -0.42500000000000004, 0.8250000000000001),
    (0.1, (-5.0, -5.0, -5.0, -5.0), 0.6931471805599453, 0.0, 0.0),
    (0.1, (-120.5, -80.25, -140.0, -60.0), 0.018605147362682362, 1.9500000000000002, -2.025),
    (0.5, (-10.0, -12.0, -11.0, -11.0), 0.31326168751822286, 0.5, -0.5),
    (0.5, (-34.25, -20.5, -30.0, -28.75), 6.2519285932042195, -2.125, 4.125),
    (0.5, (-5.0, -5.0, -5.0, -5.0), 0.6931471805599453, 0.0, 0.0),
    (0.5, (-120.5, -80.25, -140.0, -60.0), 2.3355930360718397e-09, 9.75, -10.125),
]


@pytest.mark.parametrize(("beta", "logs", "loss", "chosen", "rejected"), TRL)
def test_losses_are_trl_s(
    beta: float, logs: tuple[float, float, float, float], loss: float, chosen: float, rejected: float
) -> None:
    policy, reference = (torch.tensor(side, dtype=torch.float64)[:, None] for side in (logs[:2], logs[2:]))
    terms = preference_loss(policy, reference, torch.ones(2, 1), DPOSettings(beta))
    assert terms.losses.item() == pytest.approx(loss, rel=1e-12)
    assert terms.rewards[:, 0].tolist() == pytest.approx([chosen, rejected], rel=1e-12)


@given(st.lists(st.floats(-1e4, 0), min_size=4, max_size=4), st.floats(1e-3, 10))
def test_the_loss_is_finite_however_large_the_margin(logs: list[float], beta: float) -> None:
    policy, reference = (torch.tensor(side, dtype=torch.float64)[:, None] for side in (logs[:2], logs[2:]))
    terms = preference_loss(policy, reference, torch.ones(2, 1), DPOSettings(beta))
    margin = beta * ((logs[0] - logs[2]) - (logs[1] - logs[3]))
    expected = math.log1p(math.exp(-abs(margin))) + max(0.0, -margin)
    assert terms.losses.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_kl_is_the_sum_written_out_and_0_for_the_same_logits() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(3, 7), torch.randn(3, 7)
    p, q = a.double().softmax(-1), b.double().softmax(-1)
    torch.testing.assert_close(divergence(a, b), (p * (p / q).log()).sum(-1), rtol=1e-9, atol=1e-12)
    assert divergence(a, a).tolist() == [0.0] * 3
    assert math.isfinite(divergence(a, torch.where(a > 0, a, 1e-30)).sum())


def test_the_prompt_s_beginning_is_left_out_where_the_longer_answer_needs_its_place() -> None:
    assert encoded(range(1, 8), [1, 2], [3, 4, 5], 8) == EncodedPair((2, 3, 4, 5, 6, 7), (1, 2), (3, 4, 5), 1)
    pair = encoded([1, 2], [0] * 8, [1] * 8, 8)
    assert pair.prompt == (2,) and padded_pairs([pair])[0].shape == (2, 8)
    assert encoded([1, 2, 3], [4], [5], 8).left_out == 0


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "said"),
    [
        ([1], [2, 3], [2, 3], "are the same"),
        ([1], [], [2], "the chosen answer is empty"),
        ([1], [2], [], "the rejected answer is empty"),
        ([], [1], [2], "the prompt is empty"),
        ([1], [2] * 9, [3], "the chosen answer has 9 tokens, but the model sees 8 at once"),
        ([1], [3], [2] * 9, "the rejected answer has 9 tokens"),
    ],
)
def test_a_pair_that_says_nothing_is_refused(
    prompt: list[int], chosen: list[int], rejected: list[int], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        encoded(prompt, chosen, rejected, 8)


def test_settings_out_of_range_are_refused() -> None:
    for bad in ({"beta": 0.0}, {"beta": math.nan}, {"sft_weight": -1.0}, {"sft_weight": math.inf}):
        with pytest.raises(UserError, match="give a number"):
            DPOSettings(**bad)  # type: ignore[arg-type]
    for bad in ({"learning_rate": 0.0}, {"learning_rate": math.nan}, {"steps": 0}, {"steps": 201}):
        with pytest.raises(UserError, match="give a"):
            PreferenceRecipe(**bad)  # type: ignore[arg-type]
    assert all(len(one.help) <= 36 for one in (DPO | RECIPE).values())
