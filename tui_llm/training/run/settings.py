"""Training settings, presets and learning-rate schedules."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from tui_llm.common.errors import UserError

SCHEDULES = ("cosine", "wsd")
OPTIMISERS = ("adamw", "muon")
COMPILE = ("auto", "on", "off")
PRECISIONS = ("auto", "fp32", "bf16")
MOST = 10**12  # of any count: a larger number is a typing error and may not fit a float


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The settings of a run. Losses are in nats per token; a step is one optimizer update.

    One step uses `batch_size` × `accumulation` rows of `block_size` tokens. The learning rate warms up linearly over
    `warmup_steps`, then follows the `schedule` down to `min_learning_rate` at `steps`: `cosine`, half a cosine (GPT-3,
    appendix B), or `wsd`, stable until the last `decay_fraction` of the steps, then linear (Hu et al. 2024, MiniCPM,
    section 4; Hägele et al. 2024).

    Raises `UserError` if a value is invalid (see `problems`).
    """

    layers: int = 4
    heads: int = 4
    width: int = 128
    block_size: int = 128
    dropout: float = 0.0
    tokenizer: str = "nano"  # a model whose vocabulary is used, `byte`, or `gpt2`
    batch_size: int = 16
    accumulation: int = 1
    steps: int = 1000
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-4
    warmup_steps: int = 50
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    seed: int = 1
    eval_every: int = 100
    eval_batches: int = 8
    checkpoint_every: int = 100
    validation_fraction: float = 0.05
    sample_prompt: str = "Once upon a time"
    sample_tokens: int = 48
    schedule: str = "cosine"  # or `wsd`
    decay_fraction: float = 0.2  # of `wsd`
    optimiser: str = "adamw"  # or `muon`: Muon for the blocks' matrices, AdamW for the rest, at the same learning rate
    compile: str = "auto"  # torch.compile: `on`, `off`, or `auto`: on for CUDA with triton
    precision: str = "auto"  # of the matrix products: `bf16`, `fp32`, or `auto`: bf16 where the device has it
    from_model: str = ""  # a model whose weights, vocabulary and shape to start from

    def __post_init__(self) -> None:
        for message in problems(self).values():
            raise UserError(message)


def problems(settings: TrainingSettings) -> dict[str, str]:
    """Returns for each invalid field why it is invalid; an empty dict if all are valid."""
    found: dict[str, str] = {}
    for name in (
        "layers",
        "heads",
        "width",
        "block_size",
        "batch_size",
        "accumulation",
        "steps",
        "eval_every",
        "eval_batches",
        "checkpoint_every",
    ):
        value = getattr(settings, name)
        if not 1 <= value <= MOST:
            found[name] = f"{name.replace('_', ' ')} is {value}; give " + (
                "1 or more" if value < 1 else f"{MOST:,} at most"
            )
    for name in ("learning_rate", "min_learning_rate", "weight_decay", "clip"):
        value = getattr(settings, name)
        if not (math.isfinite(value) and value >= 0):
            found[name] = f"{name.replace('_', ' ')} is {value}; give a number from 0 up"
    if "width" not in found and "heads" not in found and settings.width % settings.heads:
        found["width"] = f"width {settings.width} is not a multiple of {settings.heads} heads; try " + str(
            (settings.width // settings.heads + 1) * settings.heads
        )
    if settings.block_size == 1:
        found["block_size"] = "block size is 1; give 2 or more, so that there is something to predict from"
    if not 0 <= settings.dropout < 1:
        found["dropout"] = f"dropout is {settings.dropout}; give a number from 0 to below 1"
    if not 0 < settings.validation_fraction < 1:
        found["validation_fraction"] = f"validation fraction is {settings.validation_fraction}; give 0.05, say"
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(settings, name) < 1:
            found[name] = f"{name} is {getattr(settings, name)}; give a number from 0 to below 1"
    if settings.schedule not in SCHEDULES:
        found["schedule"] = f"there is no schedule {settings.schedule!r}; there are: {', '.join(SCHEDULES)}"
    if settings.optimiser not in OPTIMISERS:
        found["optimiser"] = f"there is no optimiser {settings.optimiser!r}; there are: {', '.join(OPTIMISERS)}"
    if settings.compile not in COMPILE:
        found["compile"] = f"compile is {settings.compile!r}; give one of {', '.join(COMPILE)}"
    if settings.precision not in PRECISIONS:
        found["precision"] = f"there is no precision {settings.precision!r}; there are: {', '.join(PRECISIONS)}"
    if not 0 <= settings.decay_fraction <= 1:
        found["decay_fraction"] = f"decay fraction is {settings.decay_fraction}; give a number from 0 to 1"
    if not 0 <= settings.warmup_steps <= MOST:
        found["warmup_steps"] = f"warm-up steps is {settings.warmup_steps}; give 0 or more"
    if not 0 <= settings.seed < 2**32:
        found["seed"] = f"seed is {settings.seed}; give a whole number from 0 to {2**32 - 1:,}"
    if not 0 <= settings.sample_tokens <= MOST:
        found["sample_tokens"] = f"sample tokens is {settings.sample_tokens}; give 0 or more"
    return found


def from_fields(fields: dict[str, Any], base: TrainingSettings | None = None) -> TrainingSettings:
    """Returns `base` with some fields replaced; strings are converted to the field's type.

    Raises `UserError` if a field is unknown or a value is invalid.
    """
    base = base or TrainingSettings()
    values = dataclasses.asdict(base)
    for name, value in fields.items():
        if name not in values:
            raise UserError(f"there is no training setting {name!r}; there are: {', '.join(values)}")
        kind = type(values[name])
        try:
            values[name] = _whole(value) if kind is int else float(value) if kind is float else str(value)
        except (TypeError, ValueError, OverflowError) as error:
            wanted = "a whole number" if kind is int else "a number"
            raise UserError(f"{name.replace('_', ' ')} is {value!r}; give {wanted}") from error
    return TrainingSettings(**values)


def _whole(value: Any) -> int:
    """Converts to int only if nothing is lost: 1.5 and True are rejected."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def _preset(**fields: Any) -> TrainingSettings:
    return TrainingSettings(**fields)


PRESETS: dict[str, TrainingSettings] = {
    "toy": _preset(
        tokenizer="byte",
        layers=2,
        heads=2,
        width=64,
        block_size=64,
        batch_size=16,
        steps=400,
        learning_rate=3e-3,
        min_learning_rate=3e-4,
        warmup_steps=20,
        eval_every=50,
        eval_batches=4,
        checkpoint_every=50,
        sample_tokens=80,
    ),
    "small": _preset(
        layers=4,
        heads=4,
        width=128,
        block_size=128,
        batch_size=16,
        steps=2000,
        learning_rate=2e-3,
        min_learning_rate=2e-4,
        warmup_steps=50,
        eval_every=100,
        checkpoint_every=100,
    ),
    "nano": _preset(
        layers=4,
        heads=4,
        width=256,
        block_size=256,
        batch_size=16,
        steps=6000,
        learning_rate=2e-3,
        min_learning_rate=1e-4,
        warmup_steps=150,
        beta2=0.99,
        eval_every=250,
        checkpoint_every=250,
        validation_fraction=0.02,
    ),
    "gpt2": _preset(
        tokenizer="gpt2",
        layers=12,
        heads=12,
        width=768,
        block_size=1024,
        batch_size=8,
        accumulation=60,
        steps=600_000,
        learning_rate=6e-4,
        min_learning_rate=6e-5,
        warmup_steps=2000,
        eval_every=1000,
        eval_batches=20,
        checkpoint_every=1000,
        validation_fraction=0.005,
    ),
    "gpt2-medium": _preset(
        tokenizer="gpt2",
        layers=24,
        heads=16,
        width=1024,
        block_size=1024,
        batch_size=8,
        accumulation=64,
        steps=600_000,
        learning_rate=3e-4,
        min_learning_rate=3e-5,
        warmup_steps=2000,
        eval_every=1000,
        eval_batches=20,
        checkpoint_every=1000,
        validation_fraction=0.005,
    ),
    "gpt2-large": _preset(
        tokenizer="gpt2",
        layers=36,
        heads=20,
        width=1280,
        block_size=1024,
        batch_size=4,
        accumulation=128,
        steps=600_000,
        learning_rate=2.5e-4,
        min_learning_rate=2.5e-5,
        warmup_steps=2000,
        eval_every=1000,
        eval_batches=20,
        checkpoint_every=1000,
        validation_fraction=0.005,
    ),
    "gpt2-xl": _preset(
        tokenizer="gpt2",
        layers=48,
        heads=25,
        width=1600,
        block_size=1024,
        batch_size=4,
        accumulation=256,
        steps=300_000,
        learning_rate=2e-4,
        min_learning_rate=2e-5,
        warmup_steps=2000,
        eval_every=1000,
        eval_batches=20,
        checkpoint_every=1000,
        validation_fraction=0.005,
    ),
}
"""The shapes of `gpt2` to `gpt2-xl` are those of OpenAI's released models (124M, 355M, 774M, 1558M; Radford et al. 2019,
table 2; the counts, the table's own being wrong, are from github.com/openai/gpt-2). How those were trained was not
published but for batches of 512 rows. `gpt2` has nanoGPT's schedule (config/train_gpt2.py). The larger ones have what
GPT-3's paper gives for the models of their sizes (Brown et al. 2020, table 2.1: 350M, 760M, 1.3B; 0.5, 0.5 and 1 million
tokens a step, at 3, 2.5 and 2 · 10⁻⁴, down to a tenth: appendix B), for as many tokens as `gpt2` sees, about 300 billion.
Rows are 1024 tokens; a smaller `batch_size` and a larger `accumulation` make the same step in less memory."""


def preset(name: str) -> TrainingSettings:
    """Returns the preset with that name. Raises `UserError` if there is none."""
    if name not in PRESETS:
        raise UserError(f"there is no preset {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Returns the learning rate of step `step` (from 1): linear warm-up, then the decay of the schedule."""
    peak, warm = settings.learning_rate, settings.warmup_steps
    if step <= warm:
        return peak * step / max(1, warm)
    low = min(settings.min_learning_rate, peak)
    if settings.schedule == "wsd":
        down = min(round(settings.decay_fraction * settings.steps), settings.steps - warm)  # number of decay steps
        left = max(0, settings.steps - step)
        return peak if left >= down else low + (peak - low) * left / down
    done = min(1.0, (step - warm) / max(1, settings.steps - warm))
    return low + 0.5 * (peak - low) * (1 + math.cos(math.pi * done))
