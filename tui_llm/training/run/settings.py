"""Training settings, presets and learning-rate schedules."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.suggestions import no_such
from tui_llm.facts.policy import ADVANTAGES, AVERAGES, MOST_SAMPLES, MOST_TOKENS, MOST_UPDATES
from tui_llm.facts.preference import BETA, SFT_WEIGHT, DPOSettings
from tui_llm.facts.setting import MOST, Range, Setting
from tui_llm.llm.data.formats import FORMATS, TextFormat

SCHEDULES = ("cosine", "wsd")
OPTIMIZERS = ("adamw", "muon")
COMPILE = ("auto", "on", "off")
PRECISIONS = ("auto", "fp32", "bf16")
PRETRAINING, PREFERENCE, REWARD = OBJECTIVES = ("pretraining", "preference", "reward")
LEARNS = {PRETRAINING: "text", PREFERENCE: "preference pairs", REWARD: "a reward"}
OFF_ON = ("off", "on")

_BELOW_1, _LARGEST = math.nextafter(1, 0), math.nextafter(math.inf, 0)
COUNT = Range(1, MOST, "1 or more")
COUNT_OR_0 = Range(0, MOST, "0 or more")
CONTEXT = Range(2, MOST, "2 or more, so that there is something to predict from")
POSITIVE_OR_0 = Range(0, _LARGEST, "a number from 0 up")
SHARE = Range(0, 1, "a number from 0 to 1")
TEMPERATURE = Range(0.01, 100, "0.01 to 100: at 0 all answers would be the same")
KL_WEIGHT = Range(0, 100, "a number from 0 to 100, such as 0.04")
SAMPLES = Range(2, MOST_SAMPLES, f"2 to {MOST_SAMPLES}: a reward counts against the group's mean")
ANSWER_TOKENS = Range(1, MOST_TOKENS, f"1 to {MOST_TOKENS}")
UPDATES = Range(1, MOST_UPDATES, f"1 to {MOST_UPDATES}")
SHARE_BELOW_1 = Range(0, _BELOW_1, "a number from 0 to below 1")
SHARE_BETWEEN = Range(math.nextafter(0, 1), _BELOW_1, "a number between 0 and 1, such as 0.05")
THREADS = Range(0, 4096, "0 to 4,096")
SEED = Range(0, 2**32 - 1, f"a whole number from 0 to {2**32 - 1:,}")


def _setting(default: Any, metavar: str, values: Range | tuple[str, ...] | None, help: str, *objectives: str) -> Any:
    """A field of `TrainingSettings` with its `Setting`."""
    return dataclasses.field(default=default, metadata={"setting": Setting(metavar, values, help, objectives)})


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The settings of a run; a step is one optimizer update.

    One step uses `batch_size` × `grad_accumulation_steps` rows of `block_size` tokens. The learning rate warms up
    linearly over `warmup_steps`, then follows the `schedule` down to `min_learning_rate` at `steps`: `cosine`, half a cosine (GPT-3,
    appendix B), or `wsd`, stable until the last `decay_fraction` of the steps, then linear (Hu et al. 2024, MiniCPM,
    section 4; Hägele et al. 2024).

    Raises `UserError` if a value is invalid (see `problems`).
    """

    layers: int = _setting(4, "L", COUNT, "transformer blocks")
    heads: int = _setting(4, "H", COUNT, "attention heads in each block")
    width: int = _setting(128, "C", COUNT, "residual stream; a multiple of heads")
    block_size: int = _setting(128, "T", CONTEXT, "tokens per row: the model's context")
    dropout: float = _setting(0.0, "F", SHARE_BELOW_1, "share of activations set to 0", PRETRAINING)
    tokenizer: str = _setting("nano", "NAME", None, "byte, char, word, gpt2, or a model's")
    batch_size: int = _setting(16, "B", COUNT, "rows per batch")
    grad_accumulation_steps: int = _setting(1, "N", COUNT, "batches per optimizer step")
    steps: int = _setting(1000, "N", COUNT, "optimizer steps in total")
    minutes: float = _setting(0.0, "M", POSITIVE_OR_0, "end after this time; 0: by steps", PRETRAINING)
    learning_rate: float = _setting(1e-3, "R", POSITIVE_OR_0, "the peak, after warm-up")
    min_learning_rate: float = _setting(1e-4, "R", POSITIVE_OR_0, "the lowest, at the schedule's end")
    warmup_steps: int = _setting(50, "N", COUNT_OR_0, "steps until the peak learning rate")
    weight_decay: float = _setting(0.1, "F", POSITIVE_OR_0, "applies to matrices only")
    beta1: float = _setting(0.9, "F", SHARE_BELOW_1, "decay of the mean gradient")
    beta2: float = _setting(0.95, "F", SHARE_BELOW_1, "decay of the mean squared gradient")
    clip: float = _setting(1.0, "F", POSITIVE_OR_0, "largest gradient norm; 0: no limit")
    seed: int = _setting(1, "S", SEED, "of the weights and the data's order")
    eval_every: int = _setting(100, "N", COUNT, "steps between evaluations")
    eval_batches: int = _setting(8, "N", COUNT, "held-out batches per evaluation")
    checkpoint_every: int = _setting(100, "N", COUNT, "steps between checkpoints")
    validation_fraction: float = _setting(0.05, "F", SHARE_BETWEEN, "share of the text that is held out")
    sample_prompt: str = _setting("Once upon a time", "TEXT", None, "the prompt of the samples")
    sample_tokens: int = _setting(48, "N", COUNT_OR_0, "tokens per sample")
    schedule: str = _setting("cosine", "NAME", SCHEDULES, "wsd: stable, then linear decay")
    decay_fraction: float = _setting(0.2, "F", SHARE, "wsd: share of the steps that decay")
    optimizer: str = _setting("adamw", "NAME", OPTIMIZERS, "muon: matrices; AdamW for the rest")
    momentum_warmup_steps: int = _setting(0, "N", COUNT_OR_0, "muon: 0.85 to 0.95 in N steps")
    cautious_decay: str = _setting("off", "HOW", OFF_ON, "on: decay only along the update")
    ema_decay: float = _setting(0.0, "F", SHARE_BELOW_1, "of the mean of the weights; 0: off", PRETRAINING)
    shuffle_documents: str = _setting("off", "HOW", OFF_ON, "on: in each epoch anew", PRETRAINING)
    compile: str = _setting("auto", "HOW", COMPILE, "torch.compile; auto: on for CUDA")
    threads: int = _setting(0, "N", THREADS, "CPU threads; 0: torch's default")
    precision: str = _setting("auto", "NAME", PRECISIONS, "of matmuls; auto: bf16 where faster")
    from_model: str = _setting("", "M", None, "start from this model's weights")
    format: str = _setting("auto", "NAME", FORMATS, "auto: by the file's name", PRETRAINING)
    field: str = _setting("", "NAME", None, "key or column with the text", PRETRAINING)
    arch: str = _setting("", "LIST", None, "switches: rope,rmsnorm …; or modern", PRETRAINING)
    attention_only: str = _setting("off", "HOW", OFF_ON, "on: blocks without an MLP", PRETRAINING)
    objective: str = _setting(PRETRAINING, "NAME", OBJECTIVES, "learn text, preferences, or a reward")
    beta: float = _setting(0.1, "B", BETA, "pull to the start model (DPO)", PREFERENCE)
    sft_weight: float = _setting(0.0, "A", SFT_WEIGHT, "weight of the chosen's loss (RPO)", PREFERENCE)
    length_normalized: str = _setting("off", "HOW", OFF_ON, "on: log-ratios per token (LN-DPO)", PREFERENCE)
    reward: str = _setting("", "SPEC", None, "scores answers, as contains:happy", REWARD)
    samples: int = _setting(8, "K", SAMPLES, "answers drawn to each prompt", REWARD)
    answer_tokens: int = _setting(24, "N", ANSWER_TOKENS, "most tokens of a drawn answer", REWARD)
    temperature: float = _setting(1.0, "T", TEMPERATURE, "of the drawn answers", REWARD)
    advantage: str = _setting("mean", "HOW", tuple(ADVANTAGES), "reward − mean; std: ÷ deviation too", REWARD)
    average: str = _setting("constant", "HOW", tuple(AVERAGES), "over tokens, as GRPO, DAPO, Dr. GRPO", REWARD)
    updates: int = _setting(1, "N", UPDATES, "optimizer steps on the same answers", REWARD)
    clip_ratio: float = _setting(0.2, "F", SHARE_BETWEEN, "of π ÷ π_old, from the 2nd update on", REWARD)
    kl_weight: float = _setting(0.04, "F", KL_WEIGHT, "of the KL to the start model", REWARD)

    @property
    def text_format(self) -> TextFormat:
        """How the corpus is read."""
        return TextFormat(self.format, self.field)

    @property
    def rows_per_example(self) -> int:
        """Rows that the model reads for each row of a batch: both answers of a pair, or all that are drawn to a prompt."""
        return {PREFERENCE: 2, REWARD: self.samples}.get(self.objective, 1)

    @property
    def dpo(self) -> DPOSettings:
        """The loss of a run that learns preferences."""
        return DPOSettings(self.beta, self.length_normalized == "on", self.sft_weight)

    def __post_init__(self) -> None:
        for message in problems(self, earlier=True).values():
            raise UserError(message)


SETTINGS: dict[str, Setting] = {field.name: field.metadata["setting"] for field in dataclasses.fields(TrainingSettings)}
"""Every setting by its name in `TrainingSettings`."""

EXECUTION = ("compile", "threads")
"""Settings of how a run is executed, which its next worker may have otherwise."""

OBJECTIVE_DEFAULTS: dict[str, dict[str, Any]] = {
    PRETRAINING: {},
    PREFERENCE: {"batch_size": 8, "steps": 100, "learning_rate": 2e-5, "min_learning_rate": 2e-6, "warmup_steps": 10,
                 "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "grad_accumulation_steps": 1, "eval_every": 10,
                 "eval_batches": 8, "checkpoint_every": 20, "validation_fraction": 0.1, "minutes": 0.0,
                 "cautious_decay": "off", "momentum_warmup_steps": 0},
    REWARD: {"batch_size": 2, "steps": 60, "learning_rate": 1e-4, "min_learning_rate": 1e-5, "warmup_steps": 5,
             "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "grad_accumulation_steps": 1, "eval_every": 10,
             "eval_batches": 4, "checkpoint_every": 20, "validation_fraction": 0.1,
             "minutes": 0.0, "cautious_decay": "off", "momentum_warmup_steps": 0},
}  # fmt: skip
"""What replaces a preset's values: a trained model is changed in small steps."""

MOST_WARM_UP = {"warmup_steps": 10, "momentum_warmup_steps": 5}
"""A new run's default for these is at most the number of steps divided by this, and at least 1."""

RENAMED = {"optimiser": "optimizer", "accumulation": "grad_accumulation_steps"}
"""Settings by the names that they had in earlier runs' config.json and on earlier command lines."""


def problems(settings: TrainingSettings, *, earlier: bool = False) -> dict[str, str]:
    """Returns for each invalid field why it is invalid; an empty dict if all are valid. `earlier`: what an earlier version could
    begin is valid too, so that its runs are read and resumed as they began."""
    found: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        value = getattr(settings, name)
        if give := setting.problem(value):
            shown = repr(value) if setting.choices else value
            found[name] = f"{name.replace('_', ' ')} is {shown}; give {give}"
    if not {"width", "heads"} & found.keys() and settings.width % settings.heads:
        found["width"] = f"width {settings.width} is not a multiple of {settings.heads} heads; try " + str(
            (settings.width // settings.heads + 1) * settings.heads
        )
    if settings.arch and "arch" not in found:
        found |= _arch_problems(settings, shaped=not {"layers", "width", "heads", "block_size"} & found.keys())
    if settings.attention_only == "on" and settings.from_model:
        found["attention_only"] = f"attention only is for random weights: {settings.from_model} has MLPs; leave one out"
    if settings.momentum_warmup_steps and settings.optimizer != "muon":
        found["momentum_warmup_steps"] = "momentum warmup steps are muon's: give the optimizer muon, or leave them out"
    if settings.cautious_decay == "on" and settings.weight_decay == 0:
        found["cautious_decay"] = "cautious decay is on, but weight decay is 0; give a weight decay, or leave it out"
    return found | _objective_problems(settings, {*found, "dropout"} if earlier else found)


def _arch_problems(settings: TrainingSettings, *, shaped: bool) -> dict[str, str]:
    """What contradicts in the architecture switches; `shaped`: the model's shape is valid, so that they can be held against it."""
    from tui_llm.llm.model import switches  # only such runs need it
    from tui_llm.llm.model.shape import GPTConfig

    s = settings
    if s.from_model and switches.listed(s.arch):
        return {"arch": f"switches are for random weights: {s.from_model} has an architecture; leave one out"}
    shape = GPTConfig(1, s.block_size, 1, s.heads, s.width) if shaped else None
    why = switches.problem(s.arch, shape)
    if not why and s.attention_only == "on" and switches.RELU2 in switches.parse(s.arch):
        why = "relu2 is the MLP's activation, and attention only has no MLP; leave one out"
    return {"arch": why} if why else {}


def _objective_problems(settings: TrainingSettings, found: Container[str]) -> dict[str, str]:
    """What contradicts the objective: a setting that has no effect in it, or a rule that can't score; but for the settings in
    `found`."""
    objective = settings.objective
    if "objective" in found:
        return {}
    wrong = {}
    for name, setting in SETTINGS.items():
        changed = getattr(settings, name) != TrainingSettings.__dataclass_fields__[name].default
        if changed and name not in found and setting.objectives and objective not in setting.objectives:
            wrong[name] = (
                f"{name.replace('_', ' ')} has no effect in a run that learns {LEARNS[objective]}; leave it out"
            )
    if "dropout" in wrong:  # it would have one: the same weights would differ from those of the reference, and of π_old
        wrong["dropout"] = (
            f"dropout is for pre-training only: a run that learns {LEARNS[objective]} compares with models without it; leave it out"
        )
    if objective != PRETRAINING and settings.compile == "on":
        wrong["compile"] = f"torch.compile is for pre-training only; leave out --compile to learn {LEARNS[objective]}"
    if objective == REWARD:
        from tui_llm.llm.learn.reward import parse  # torch-free, and only such runs need it

        try:
            if parse(settings.reward).by_hand:
                wrong["reward"] = "a run in the background can't be scored by hand; give a rule, such as contains:happy"
        except UserError as error:
            wrong["reward"] = str(error)
    return wrong


def from_fields(fields: dict[str, Any], base: TrainingSettings | None = None) -> TrainingSettings:
    """Returns `base` with some fields replaced; strings are converted to the field's type. Earlier names are accepted.

    Raises `UserError` if a field is unknown or a value is invalid.
    """
    base = base or TrainingSettings()
    values = dataclasses.asdict(base)
    for given, value in fields.items():
        if (name := RENAMED.get(given, given)) not in values:
            raise UserError(no_such("training setting", name, values))
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
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def _preset(**fields: Any) -> TrainingSettings:
    return TrainingSettings(**fields)


_NANO = _preset(
    layers=4, heads=4, width=256, block_size=256, batch_size=16, steps=6000, learning_rate=2e-3, min_learning_rate=1e-4,
    warmup_steps=150, beta2=0.99, eval_every=250, checkpoint_every=250, validation_fraction=0.02,
)  # fmt: skip
_MODERN = dataclasses.replace(
    _NANO, arch="modern", optimizer="muon", learning_rate=1e-2, schedule="wsd", decay_fraction=0.4,
    momentum_warmup_steps=300, cautious_decay="on",
)  # fmt: skip

BUDGET = "budget"  # the preset whose model is picked by the machine and `minutes`, see plan/budget.py

PRESETS: dict[str, TrainingSettings] = {
    "toy": _preset(
        tokenizer="byte", layers=2, heads=2, width=64, block_size=64, batch_size=16, steps=400, learning_rate=3e-3,
        min_learning_rate=3e-4, warmup_steps=20, eval_every=50, eval_batches=4, checkpoint_every=50,
        sample_tokens=80,
    ),
    "induction": _preset(
        tokenizer="char", layers=2, heads=2, width=64, block_size=64, batch_size=32, steps=1000, optimizer="muon",
        learning_rate=5e-3, min_learning_rate=5e-4, schedule="wsd", warmup_steps=50, eval_every=50, eval_batches=4,
        attention_only="on", sample_prompt="qxbtnmpdawkqxb", sample_tokens=8,
    ),
    "small": _preset(
        layers=4, heads=4, width=128, block_size=128, batch_size=16, steps=2000, learning_rate=2e-3,
        min_learning_rate=2e-4, warmup_steps=50, eval_every=100, checkpoint_every=100,
    ),
    "nano": _NANO,
    "modern": _MODERN,
    "shakespeare": _preset(
        from_model="nano", layers=4, heads=4, width=256, block_size=256, batch_size=16, steps=160, optimizer="muon",
        learning_rate=4e-3, min_learning_rate=0.0, schedule="wsd", decay_fraction=0.9, warmup_steps=10,
        eval_every=20, eval_batches=4, checkpoint_every=40, sample_prompt="ROMEO:", sample_tokens=120,
    ),
    BUDGET: _preset(
        minutes=5.0, optimizer="muon", learning_rate=1e-2, min_learning_rate=0.0, schedule="wsd",
        decay_fraction=0.5, warmup_steps=20, batch_size=8, eval_batches=4,
    ),
    "gpt2": _preset(
        tokenizer="gpt2", layers=12, heads=12, width=768, block_size=1024, batch_size=8, grad_accumulation_steps=60,
        steps=600_000, learning_rate=6e-4, min_learning_rate=6e-5, warmup_steps=2000, eval_every=1000,
        eval_batches=20, checkpoint_every=1000, validation_fraction=0.005,
    ),
    "gpt2-medium": _preset(
        tokenizer="gpt2", layers=24, heads=16, width=1024, block_size=1024, batch_size=8,
        grad_accumulation_steps=64, steps=600_000, learning_rate=3e-4, min_learning_rate=3e-5, warmup_steps=2000,
        eval_every=1000, eval_batches=20, checkpoint_every=1000, validation_fraction=0.005,
    ),
    "gpt2-large": _preset(
        tokenizer="gpt2", layers=36, heads=20, width=1280, block_size=1024, batch_size=4,
        grad_accumulation_steps=128, steps=600_000, learning_rate=2.5e-4, min_learning_rate=2.5e-5,
        warmup_steps=2000, eval_every=1000, eval_batches=20, checkpoint_every=1000, validation_fraction=0.005,
    ),
    "gpt2-xl": _preset(
        tokenizer="gpt2", layers=48, heads=25, width=1600, block_size=1024, batch_size=4,
        grad_accumulation_steps=256, steps=300_000, learning_rate=2e-4, min_learning_rate=2e-5, warmup_steps=2000,
        eval_every=1000, eval_batches=20, checkpoint_every=1000, validation_fraction=0.005,
    ),
}  # fmt: skip
"""`modern` is `nano` with today's architecture and optimizer. The shapes of `gpt2` to `gpt2-xl` are those of OpenAI's released
models (124M, 355M, 774M, 1558M; Radford et al. 2019,
table 2; the counts, the table's own being wrong, are from github.com/openai/gpt-2). How those were trained was not
published but for batches of 512 rows. `gpt2` has nanoGPT's schedule (config/train_gpt2.py). The larger ones have what
GPT-3's paper gives for the models of their sizes (Brown et al. 2020, table 2.1: 350M, 760M, 1.3B; 0.5, 0.5 and 1 million
tokens a step, at 3, 2.5 and 2 · 10⁻⁴, down to a tenth: appendix B), for as many tokens as `gpt2` sees, about 300 billion.
Rows are 1024 tokens; a smaller `batch_size` and a larger `grad_accumulation_steps` make the same step in less memory."""


def preset(name: str) -> TrainingSettings:
    """Returns the preset with that name. Raises `UserError` if there is none."""
    if name not in PRESETS:
        raise UserError(no_such("preset", name, PRESETS))
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
