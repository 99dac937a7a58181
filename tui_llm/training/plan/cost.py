"""What a run will cost, before it is started: parameters, memory, tokens, floating-point operations. No torch here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.run.settings import TrainingSettings

ROOM = 0.9  # of what is available may be filled: the estimate knows nothing of the libraries' own memory


@dataclass(frozen=True, slots=True)
class Cost:
    """Memory in bytes, of one process; `tokens` and `flops` are the whole run's."""

    parameters: int
    step_tokens: int  # that one optimiser step sees
    tokens: int
    flops: float
    state_bytes: int  # weights, gradients, the optimiser's memory
    activation_bytes: int  # what one batch leaves for its backward pass: an estimate

    @property
    def memory_bytes(self) -> int:
        return self.state_bytes + self.activation_bytes


def flops_per_token(config: GPTConfig, block_size: int) -> int:
    """Floating-point operations that training spends on a token: 6 · N (2 forward, 4 backward), N being the parameters
    that multiply: all but the position embedding; and 12 · layers · width · T for the attention, T being the row's
    length, as if it weren't causal (PaLM, Chowdhery et al. 2022, appendix B)."""
    multiply = config.parameters() - config.context * config.width
    return 6 * multiply + 12 * config.layers * config.width * block_size


def fitting(settings: TrainingSettings, config: GPTConfig, available: int | None) -> tuple[int, int] | None:
    """(batch size, accumulation) that make the same step as `settings` do, in less memory: the largest batch, at most
    half as large, that is estimated to fit into `available` bytes (None: nobody knows). None where no batch will.

    The held-out rows stay the same too: the batch divides the old one.
    """
    batch = settings.batch_size
    for size in (size for size in range(batch // 2, 0, -1) if batch % size == 0):
        smaller = dataclasses.replace(settings, batch_size=size, accumulation=settings.accumulation * (batch // size))
        if available is None or cost(smaller, config).memory_bytes <= ROOM * available:
            return smaller.batch_size, smaller.accumulation
    return None


def cost(settings: TrainingSettings, config: GPTConfig) -> Cost:
    """The cost of a run with `settings` of a model of that shape, evaluations and samples not counted.

    Memory: float32 weights, gradients and two moments (AdamW) or one (Muon) of each;
    and activations in float32: per token 16 · C + H numbers a block (the inner layer as 4 · C), 2 · C after the last, and
    the logits twice. bfloat16 products take about half of the activations.
    """
    step_tokens = settings.batch_size * settings.accumulation * settings.block_size
    tokens = step_tokens * settings.steps
    width, layers = config.width, config.layers
    n = config.parameters()
    matrices = layers * (4 * width**2 + 2 * width * config.hidden) if settings.optimiser == "muon" else 0
    block = 8 * width + 2 * config.hidden + config.heads
    numbers = layers * block + 2 * width + 2 * config.vocabulary
    return Cost(
        parameters=n,
        step_tokens=step_tokens,
        tokens=tokens,
        flops=float(flops_per_token(config, settings.block_size)) * tokens,
        state_bytes=4 * (4 * n - matrices),
        activation_bytes=4 * settings.batch_size * settings.block_size * numbers,
    )


def shape(settings: TrainingSettings, vocabulary: int) -> GPTConfig:
    """The shape of the model that a run with `settings` makes, for a vocabulary of that many tokens."""
    s = settings
    return GPTConfig(vocabulary, s.block_size, s.layers, s.heads, s.width, dropout=s.dropout)
