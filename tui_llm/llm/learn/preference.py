"""Direct preference optimization: the loss of a pair of answers, the chosen and the rejected one, to one prompt.

    loss = −ln σ(margin),   margin = β [(ln π(chosen) − ln ref(chosen)) − (ln π(rejected) − ln ref(rejected))]

ln π is a sum over the answer's tokens, each given the true tokens before it; the prompt's tokens don't count. The reference
enters as two sums per pair, so they are computed once and stored, and no second model is kept. Before the first step
π = ref, the margin is 0 and the loss ln 2. Its gradient is −β σ(−margin) [∇ ln π(chosen) − ∇ ln π(rejected)]: only the
difference of the two counts, so both may fall. Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is
Secretly a Reward Model" (arXiv 2305.18290), equation 7. The variants are those of `DPOSettings`.

Letters: B pairs, T tokens in a row, V the vocabulary. A batch has 2 B rows: the chosen answers, then the rejected ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tui_llm.common.errors import UserError
from tui_llm.facts.preference import DPOSettings
from tui_llm.llm.learn.answer_batch import padded, token_log_probabilities
from tui_llm.llm.learn.instruct import IGNORE
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A prompt and two answers as ids, checked by `encoded`. `left_out` is the number of ids at the prompt's beginning
    that did not fit into the context with the longer answer; both answers follow the same rest."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    left_out: int = 0


def encode(prompt: str, chosen: str, rejected: str, tokenizer: Tokenizer, context: int) -> EncodedPair:
    """Tokenize a pair. The answers are taken as written: a space between prompt and answer belongs to the answer. Raises
    `UserError` as `encoded` does."""
    return encoded(tokenizer.encode(prompt), tokenizer.encode_after(chosen), tokenizer.encode_after(rejected), context)


def encoded(
    prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int], context: int, *, distinct: bool = True
) -> EncodedPair:
    """Raises `UserError` if the prompt or an answer has no tokens, one is longer than the `context`, or both are equal,
    unless `distinct` is False: equal answers can be read, but not learned from."""
    if not prompt:
        raise UserError("the prompt is empty; the answers must follow some text")
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer:
            raise UserError(f"the {name} answer is empty; give some text")
        if len(answer) > context:
            raise UserError(
                f"the {name} answer has {len(answer):,} tokens, but the model sees {context:,} at once; shorten it"
            )
    if distinct and list(chosen) == list(rejected):
        raise UserError("the chosen and the rejected answer are the same; there is nothing to prefer")
    room = context + 1 - max(len(chosen), len(rejected))  # an answer's last token is predicted, not fed
    return EncodedPair(tuple(prompt[-room:]), tuple(chosen), tuple(rejected), max(0, len(prompt) - room))


def padded_pairs(pairs: Sequence[EncodedPair]) -> tuple[Tensor, Tensor]:
    """`answer_batch.padded` of the chosen answers, then the rejected ones: inputs and targets (2 B, T)."""
    return padded([(pair.prompt, pair.chosen) for pair in pairs] + [(pair.prompt, pair.rejected) for pair in pairs])


def log_probabilities(tokens: Tensor) -> Tensor:
    """ln π of the answers (2, B), chosen and rejected, from their tokens' (2 B, T): summed in float64, because a margin
    is a small difference of large sums."""
    exact = tokens if tokens.device.type == "mps" else tokens.double()  # MPS has no float64
    return exact.sum(-1).view(2, -1)


def answer_lengths(targets: Tensor) -> Tensor:
    """The answers' numbers of tokens (2, B)."""
    return (targets != IGNORE).sum(-1).view(2, -1)


@torch.no_grad()
def reference_log_probabilities(model: GPT, pairs: Sequence[EncodedPair], size: int, batch: int = 8) -> Tensor:
    """ln ref of the answers of all B pairs (2, B), on the CPU: what a run computes once, `batch` pairs at a time."""
    parts = []
    for start in range(0, len(pairs), batch):
        inputs, targets = (side.to(model.device) for side in padded_pairs(pairs[start : start + batch]))
        parts.append(log_probabilities(token_log_probabilities(model, inputs, targets, size)).cpu())
    return torch.cat(parts, 1)


@dataclass(frozen=True, slots=True)
class PreferenceTerms:
    """Tensors (B,) of a batch; `rewards` is (2, B), chosen and rejected, without gradient. The loss of a batch is
    `losses.mean()`; the model agrees with a pair if its margin is above 0."""

    losses: Tensor
    rewards: Tensor

    @property
    def margins(self) -> Tensor:
        return self.rewards[0] - self.rewards[1]


def preference_loss(policy: Tensor, reference: Tensor, lengths: Tensor, settings: DPOSettings) -> PreferenceTerms:
    """The loss of B pairs from ln π (2, B), ln ref (2, B) and the answers' lengths (2, B).

    Example: with β = 0.1, ln π = (−10, −12) and ln ref = (−11, −11) the rewards are 0.1 and −0.1, the margin is 0.2 and
    the loss −ln σ(0.2) = 0.598.
    """
    rewards = settings.beta * (policy - reference)
    if settings.length_normalized:
        rewards = rewards / lengths
    losses = -F.logsigmoid(rewards[0] - rewards[1])
    if settings.sft_weight:
        losses = losses - settings.sft_weight * policy[0] / lengths[0]
    return PreferenceTerms(losses, rewards.detach())


def divergence(policy: Tensor, reference: Tensor) -> Tensor:
    """KL(π ‖ ref) = Σ π (ln π − ln ref) in nats of rows of logits (N, V) → (N,), float64; 0 = identical."""
    ours, theirs = (logits.double().log_softmax(-1) for logits in (policy, reference))
    return F.kl_div(theirs, ours, reduction="none", log_target=True).sum(-1).clamp_min(0.0)
