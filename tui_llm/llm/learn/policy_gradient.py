"""Policy gradient on a group of answers to one prompt: GRPO (Shao et al. 2024, arXiv 2402.03300, equations 3 and 4) and
its mean-only form, "Dr. GRPO" (Liu et al. 2025, arXiv 2503.20783).

    loss = − average over tokens of [min(r A, clip(r, 1 − ε, 1 + ε) A) − β kl]

    r  = π(token) ÷ π_old(token), π_old the policy that drew the answers; 1 in the first update on them
    A  = the answer's advantage, the same for all of its tokens: reward − the group's mean, or that ÷ the standard deviation
    kl = ref(token) ÷ π(token) − ln [ref(token) ÷ π(token)] − 1: for tokens drawn from π an unbiased estimate of KL(π ‖ ref)
         that is never negative, "k3" of Schulman 2020, "Approximating KL Divergence". Its gradient is not that of
         KL(π ‖ ref) but, in expectation, of KL(ref ‖ π) after the tokens before, which count as given (TRL's
         use_bias_correction_kl, if on, multiplies kl by r: the gradient is then that of KL(π ‖ ref))

What each choice biases is in `facts/policy.py`. Letters: K answers, T tokens of the longest row, V the vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.facts.policy import PolicySettings
from tui_llm.llm.learn.answer_batch import Row, padded, token_log_probabilities
from tui_llm.llm.learn.instruct import IGNORE
from tui_llm.llm.model.model import GPT, KVCache
from tui_llm.llm.predict.tree_attention import TreeCache

SMALLEST_DEVIATION = 1e-4  # added to the standard deviation, as TRL does
SHARED = 1024  # tokens of prompt and answers that are computed as one row: its mask has their square
LARGEST_NORM = 1.0  # of the gradient: larger ones are scaled down


def group_advantages(rewards: Tensor, kind: str = "mean") -> Tensor:
    """Rewards (…, K) of groups of K answers → advantages (…, K).

    `mean` subtracts the group's mean; `std` also divides by the standard deviation (with K − 1 degrees of freedom) +
    `SMALLEST_DEVIATION`. If all rewards of a group are equal, its advantages are exactly 0: nothing can be learned.

    Example: rewards 1, 0, 0, 0 give 0.75, −0.25, −0.25, −0.25; with `std`, whose deviation is 0.5, about twice that.
    Raises `UserError` if a reward is not finite.
    """
    if not bool(torch.isfinite(rewards).all()):
        raise UserError("a reward is not a finite number, so no step is taken")
    equal = (rewards == rewards[..., :1]).all(-1, keepdim=True)
    advantages = rewards - rewards.mean(-1, keepdim=True)
    if kind == "std":
        advantages = advantages / (rewards.std(-1, keepdim=True) + SMALLEST_DEVIATION)
    return advantages.masked_fill(equal, 0.0)


def answer_log_probabilities(
    model: GPT,
    inputs: Tensor,
    targets: Tensor,
    size: int,
    temperature: float = 1.0,
    products: torch.dtype | None = None,
) -> Tensor:
    """`answer_batch.token_log_probabilities` (K, T); a prompt that all rows share is computed once."""
    features = _shared_features(model, inputs, targets != IGNORE) if products is None else None
    return token_log_probabilities(model, inputs, targets, size, products, temperature=temperature, features=features)


def computed_tokens(inputs: Tensor, targets: Tensor, products: torch.dtype | None = None) -> int:
    """The tokens that `answer_log_probabilities` computes, without padding: those of a prompt that all rows share count once."""
    answer = targets != IGNORE
    if products is None and (last := _shared_prompt(inputs, answer)) is not None:
        return last + 1 + int(answer.sum()) - len(answer)  # nothing follows an answer's last token
    return int(answer.int().argmax(1).sum() + answer.sum())


def _shared_prompt(inputs: Tensor, answer: Tensor) -> int | None:
    """The place of the last token of the prompt that all rows share. None if they don't, or are too long for a mask over all of
    them."""
    starts = answer.int().argmax(1)
    last = int(starts[0])
    shared = len(inputs) > 1 and bool((starts == last).all()) and bool((inputs[:, : last + 1] == inputs[0, : last + 1]).all())  # fmt: skip
    return last if shared and last + int(answer.sum()) <= SHARED else None


def _shared_features(model: GPT, inputs: Tensor, answer: Tensor) -> Tensor | None:
    """The features that precede each answer token, (N, C) in the order of `answer`, from one row of tokens in which all
    answers branch off a single copy of the prompt (`predict/tree_attention.py`): nothing is computed for padding, or twice.
    None if there is no such prompt (`_shared_prompt`)."""
    if (last := _shared_prompt(inputs, answer)) is None:
        return None
    lengths = answer.sum(1).tolist()
    rows = inputs.tolist()
    ids, parents, before = rows[0][: last + 1], list(range(-1, last)), []
    for row, length in zip(rows, lengths, strict=True):
        at = last
        before.append(at)
        for id in row[last + 1 : last + length]:
            ids.append(id)
            parents.append(at)
            at = len(ids) - 1
            before.append(at)
    nothing = KVCache(dataclasses.replace(model.config, context=1), model.device, model.dtype)
    features = model.features(torch.tensor([ids], device=model.device), TreeCache(nothing, parents))[0]
    return features[torch.tensor(before, device=model.device)]


@dataclass(frozen=True, slots=True)
class PolicyTerms:
    """`loss` has a gradient. `kl`: the mean of the estimate over all answer tokens, in nats per token; `answer_kl`: of its
    sum over an answer's tokens, the mean over the answers; `clipped`: the fraction of tokens whose ratio the clip holds,
    whose advantage then gives no gradient."""

    loss: Tensor
    kl: Tensor
    answer_kl: Tensor
    clipped: Tensor


def kl_estimate(logs: Tensor, reference: Tensor) -> Tensor:
    """The k3 estimate of KL(π ‖ ref) of each token from its ln π and ln ref; any shape, in nats."""
    difference = reference - logs
    return torch.expm1(difference) - difference


def policy_loss(
    logs: Tensor,
    old: Tensor,
    reference: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    settings: PolicySettings,
    longest: int = 0,
) -> PolicyTerms:
    """The objective for K answers.

    logs, old, reference: ln π, ln π_old and ln ref of each token (K, T); the last may be None if β is 0.
    advantages: (K,); mask: (K, T), True for the answers' tokens, of which each row has at least one.
    longest: the most tokens that an answer can have, for the average `constant`; by default the mask's longest row.
    """
    keep = mask.to(logs.dtype)
    ratio = torch.exp(logs - old)
    clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    own, held = ratio * advantages[:, None], clipped * advantages[:, None]
    losses = -torch.minimum(own, held)
    kl = torch.zeros_like(logs) if reference is None else kl_estimate(logs, reference)
    if settings.beta:
        losses = losses + settings.beta * kl
    lengths = keep.sum(-1)
    if settings.average == "sequence":
        loss = ((losses * keep).sum(-1) / lengths).mean()
    elif settings.average == "token":
        loss = (losses * keep).sum() / lengths.sum()
    else:
        loss = (losses * keep).sum() / (len(logs) * (longest or int(lengths.max())))
    total, divergence = lengths.sum(), (kl.detach() * keep).sum()
    return PolicyTerms(loss, divergence / total, divergence / len(logs), ((held < own) & mask).sum() / total)


@dataclass(frozen=True, slots=True)
class PolicyUpdate:
    """One step on a group, as numbers and tensors on the CPU.

    loss, gradient_norm (before it is limited), clipped: of the last update.
    kl: mean k3 estimate per token of the policy that drew the answers, before the step, in nats.
    before, after: ln π of each answer's tokens before and after the step, at the settings' temperature.
    """

    loss: float
    gradient_norm: float
    clipped: float
    kl: float
    before: list[list[float]]
    after: list[list[float]]


def policy_step(
    model: GPT,
    optimizer: torch.optim.Optimizer,
    rows: Sequence[Row],
    advantages: Sequence[float],
    reference: GPT | Tensor,
    settings: PolicySettings,
    size: int,
    *,
    updates: int = 1,
    longest: int = 0,
    products: torch.dtype | None = None,
    compare: bool = True,
) -> PolicyUpdate:
    """`updates` optimizer steps of `model` on K answers, of different lengths, to one prompt or to several.

    advantages: (K,), see `group_advantages`; if all are 0 and β is too, the weights move by the optimizer's momentum only,
    so callers skip such groups.
    reference: the model whose pull the KL term is, or ln ref (K, T) in the layout of `padded(rows)`.
    compare: also compute `after`, one more forward pass; else it is empty.

    Raises `UserError` if the loss or the gradient is not finite; the weights are then those after the last good update.
    """
    inputs, targets = (side.to(model.device) for side in padded(rows))
    mask = targets != IGNORE
    if isinstance(reference, GPT):
        with torch.no_grad():
            reference = answer_log_probabilities(reference, inputs, targets, size, settings.temperature)
    wanted = torch.tensor(list(advantages), device=model.device, dtype=reference.dtype)
    old: Tensor | None = None
    first = terms = None
    norm = 0.0
    for _ in range(updates):
        optimizer.zero_grad(set_to_none=True)
        logs = answer_log_probabilities(model, inputs, targets, size, settings.temperature, products)
        old = logs.detach() if old is None else old
        terms = policy_loss(logs, old, reference, wanted, mask, settings, longest)
        first = first or terms
        terms.loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM))
        if not (math.isfinite(norm) and math.isfinite(float(terms.loss.detach()))):
            optimizer.zero_grad(set_to_none=True)
            raise UserError("the loss is no longer finite: undo steps, or choose a smaller learning rate")
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    assert old is not None and first is not None and terms is not None
    after: list[list[float]] = []
    if compare:
        with torch.no_grad():
            after = _by_row(answer_log_probabilities(model, inputs, targets, size, settings.temperature), mask)
        if not all(math.isfinite(value) for row in after for value in row):
            raise UserError("the step gave weights that are not finite: choose a smaller learning rate")
    return PolicyUpdate(
        float(terms.loss.detach()), norm, float(terms.clipped), float(first.kl), _by_row(old, mask), after
    )


@torch.no_grad()
def read(
    model: GPT, reference: GPT, rows: Sequence[Row], size: int, temperature: float
) -> tuple[list[list[float]], float]:
    """ln π of each answer's tokens, and the mean k3 estimate of KL(π ‖ ref) per token, of a group that is not learned."""
    inputs, targets = (side.to(model.device) for side in padded(rows))
    logs = answer_log_probabilities(model, inputs, targets, size, temperature)
    mask = targets != IGNORE
    if model is reference:
        return _by_row(logs, mask), 0.0
    theirs = answer_log_probabilities(reference, inputs, targets, size, temperature)
    return _by_row(logs, mask), float(kl_estimate(logs, theirs)[mask].mean())


def _by_row(logs: Tensor, mask: Tensor) -> list[list[float]]:
    return [row[kept].tolist() for row, kept in zip(logs.cpu(), mask.cpu(), strict=True)]
