"""What a run will cost, before it is started: parameters, memory, tokens, floating-point operations. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.llm.shape import GPTConfig
from tui_llm.training.presets import TrainingSettings


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


def cost(settings: TrainingSettings, config: GPTConfig) -> Cost:
    """The cost of a run with `settings` of a model of that shape, evaluations and samples not counted.

    Operations: 6 · N a token (2 forward, 4 backward), N being the parameters that multiply: all but the position
    embedding; and 12 · layers · width · T for the attention, T being the row's length, as if it weren't causal (PaLM,
    Chowdhery et al. 2022, appendix B). Memory: float32 weights, gradients and two moments (AdamW) or one (Muon) of each;
    and activations in float32: per token 16 · C + H numbers a block (the inner layer as 4 · C), 2 · C after the last, and
    the logits twice. bfloat16 products take about half of the activations.
    """
    n = config.parameters()
    step_tokens = settings.batch_size * settings.accumulation * settings.block_size
    tokens = step_tokens * settings.steps
    width, layers = config.width, config.layers
    per_token = 6 * (n - config.context * width) + 12 * layers * width * settings.block_size
    matrices = layers * (4 * width**2 + 2 * width * config.hidden) if settings.optimiser == "muon" else 0
    block = 8 * width + 2 * config.hidden + config.heads
    numbers = layers * block + 2 * width + 2 * config.vocabulary
    return Cost(
        parameters=n,
        step_tokens=step_tokens,
        tokens=tokens,
        flops=float(per_token) * tokens,
        state_bytes=4 * (4 * n - matrices),
        activation_bytes=4 * settings.batch_size * settings.block_size * numbers,
    )


def shape(settings: TrainingSettings, vocabulary: int) -> GPTConfig:
    """The shape of the model that a run with `settings` makes, for a vocabulary of that many tokens."""
    s = settings
    return GPTConfig(vocabulary, s.block_size, s.layers, s.heads, s.width, dropout=s.dropout)
