"""The cost of a run, estimated before it starts: parameters, memory, tokens, FLOPs. Does not import torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from tui_llm.llm.model import switches
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.run.settings import PREFERENCE, PRETRAINING, TrainingSettings

FORWARD_BACKWARD = 3  # in forward passes: a backward pass is two, for the inputs' gradients and the weights'
ROOM = 0.9  # fraction of the available memory to use: the estimate omits the libraries' own memory


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a run: memory in bytes of one process; `tokens` and `flops` of the whole run.

    `most` is "at most " for a run that learns from answers, whose rows have `block_size` tokens at most, and may share a prompt that
    is computed once.
    """

    parameters: int
    step_tokens: int  # of one optimizer step
    tokens: int
    flops: float
    state_bytes: int  # weights, gradients and optimizer state
    activation_bytes: int  # saved for the backward pass of one batch; an estimate
    flops_per_weight: int  # for each token; without the attention's
    most: str = ""

    @property
    def memory_bytes(self) -> int:
        """Bytes of tensors: without Python and torch, whose libraries the process holds too (`Metric.memory_bytes`)."""
        return self.state_bytes + self.activation_bytes


TENSORS = "weights, gradients, optimizer state and activations"
"""What `Cost.memory_bytes` counts."""
BESIDE = "Python and torch need some hundred MB beside them"


def flops_per_token(config: GPTConfig, block_size: int) -> int:
    """Returns the FLOPs of training on one token: 6 · N + 12 · layers · width · T.

    The formula is that of PaLM (Chowdhery et al. 2022, appendix B). N is the number of parameters used in matrix
    products, that is, all but the position embedding and a token embedding that is not the head too: 2 · N FLOPs for the
    forward pass and 4 · N for the backward pass. The second term is attention over rows of T = `block_size` tokens, or
    over the tokens of a sliding window, counted as if it were not causal.
    """
    tokens = 0 if config.tied else config.vocabulary * config.width
    multiply = config.parameters() - config.position_weights - tokens
    seen = min(block_size, config.window or block_size)
    return 6 * multiply + 12 * config.layers * config.width * seen


def passes(settings: TrainingSettings, *, drawing: bool = False, updates: int | None = None) -> int:
    """Returns the operations of a step on each of its tokens, in forward passes.

    A run that learns from answers also runs the model that it started from. One that learns a reward runs its own before the
    updates too, for ln π of the answers as they were drawn; and it feeds the tokens once to draw them, which counts with `drawing`.
    `updates`: those that it made, if not all of the settings'.
    """
    if settings.objective == PRETRAINING:
        return FORWARD_BACKWARD
    if settings.objective == PREFERENCE:
        return 1 + FORWARD_BACKWARD
    return drawing + 2 + FORWARD_BACKWARD * (settings.updates if updates is None else updates)


def answers_flops_per_token(config: GPTConfig, tokens: int, answers: int, length: float, forwards: int) -> float:
    """Returns the FLOPs of a step on answers, in `forwards` forward passes (see `passes`), for each of the `tokens` fed.

    The output head is computed before the `answers` tokens of answers only, not on the prompts. `length`: the mean of the rows.
    """
    head = 2 * config.vocabulary * config.width
    forward = flops_per_token(config, max(1, round(length))) / FORWARD_BACKWARD
    return forwards * (forward - head + head * answers / tokens)


def step_flops_per_token(settings: TrainingSettings, config: GPTConfig, length: int, *, drawing: bool = False) -> int:
    """Returns the FLOPs of a step with `settings` on each of its tokens, in rows of `length`; see `passes`."""
    return flops_per_token(config, length) // FORWARD_BACKWARD * passes(settings, drawing=drawing)


def activations_per_token(config: GPTConfig) -> int:
    """Returns how many numbers autograd keeps for each token; in GPT-2 16 · C + H for each block (for an MLP width of 4 · C),
    2 · C after the last block, and the logits twice.

    What the switches add: RMSNorm keeps the numbers before their gains, too; queries and keys that are rotated, normalized
    or repeated for several heads are copies; tanh keeps its result. Left out: the norms' means and deviations, and dropout's masks.
    """
    width, keys = config.width, config.key_heads * config.size
    changed, repeated = bool(config.rope) or config.qk_norm, config.key_heads != config.heads
    norm = 2 * width + width * (config.rmsnorm and config.gains)  # input and output
    queries_keys_values = (
        config.projected
        * (not (changed and repeated))  # unless none of the three is a view of the linear layer's output
        + (width + keys * (not repeated)) * changed
        + 2 * width * repeated
        + (width + keys + config.heads + config.key_heads) * config.qk_norm  # the norm's input
    )
    attended = (
        width + config.heads + width * config.qk_norm
    )  # normalized queries leave it in an order that has to be copied
    embedded = width * config.qk_norm  # the input of its norm
    logits = config.vocabulary * (3 if config.softcap else 2)
    return config.layers * (2 * norm + queries_keys_values + attended + 2 * config.hidden) + embedded + norm + logits


def fitting(settings: TrainingSettings, config: GPTConfig, available: int | None) -> tuple[int, int] | None:
    """Returns (batch size, gradient accumulation steps) for the same step as `settings` in less memory; None if none fits.

    The result is the largest batch size of at most half the old one that is estimated to fit into `available` bytes
    (None: unknown, any size is taken to fit). The new batch size divides the old one, so that the held-out rows stay
    the same.
    """
    batch = settings.batch_size
    for size in (size for size in range(batch // 2, 0, -1) if batch % size == 0):
        smaller = dataclasses.replace(
            settings, batch_size=size, grad_accumulation_steps=settings.grad_accumulation_steps * (batch // size)
        )
        if available is None or cost(smaller, config).memory_bytes <= ROOM * available:
            return smaller.batch_size, smaller.grad_accumulation_steps
    return None


def cost(settings: TrainingSettings, config: GPTConfig) -> Cost:
    """Estimates the cost of training a model of shape `config` with `settings`, without evaluations and samples.

    Memory: float32 weights and gradients, two float32 moments for AdamW or one for Muon, the average of the weights if there is
    one; and float32 activations, see `activations_per_token`. A sliding window also has a mask for each block, the same for
    all rows. A run that learns from answers also holds the weights that it started from, and runs them on every row. With
    bfloat16 matrix products, the activations take about half as much.
    """
    rows, answers = settings.batch_size * settings.rows_per_example, settings.objective != PRETRAINING
    step_tokens = rows * settings.grad_accumulation_steps * settings.block_size
    tokens = step_tokens * settings.steps
    n = config.parameters()
    matrices = config.layers * config.block_matrices() if settings.optimizer == "muon" else 0
    cuts = 0 < config.window < settings.block_size
    masks = config.layers * settings.block_size**2 if cuts else 0
    return Cost(
        parameters=n,
        step_tokens=step_tokens,
        tokens=tokens,
        flops=float(step_flops_per_token(settings, config, settings.block_size, drawing=True)) * tokens,
        state_bytes=4 * (4 * n - matrices + n * answers + n * (settings.ema_decay > 0)),
        activation_bytes=4 * (rows * settings.block_size * activations_per_token(config) + masks),
        flops_per_weight=2 * passes(settings, drawing=True),
        most="at most " if answers else "",
    )


def shape(settings: TrainingSettings, vocabulary: int) -> GPTConfig:
    """Returns the shape of the model that a run with `settings` trains, for a vocabulary of `vocabulary` tokens."""
    s = settings
    inner = 1 if s.attention_only == "on" else 0  # without an MLP, see llm/model/attention_only.py
    plain = GPTConfig(vocabulary, s.block_size, s.layers, s.heads, s.width, inner, dropout=s.dropout)
    return switches.applied(plain, s.arch) if s.arch else plain
