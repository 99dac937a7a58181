"""A run with a time budget: measure the machine, pick the model and its schedule, plan the number of steps. No torch import.

The shapes of `SHAPES` are timed from the smallest on; the law of `loss_law.py` says which of them has the lowest loss in the time
that is left. The number of steps is a first guess: the worker's clock corrects it (`training/worker/clock.py`).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted, duration
from tui_llm.llm.hub.lookup import vocabulary_size
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import cost, launch
from tui_llm.training.plan.budget_measurement import BudgetMeasurement
from tui_llm.training.plan.loss_law import LAW
from tui_llm.training.run import time_plan
from tui_llm.training.run.promises import expected_text, promise
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import BUDGET, MOST_WARM_UP, PRESETS, TrainingSettings, from_fields
from tui_llm.training.run.time_plan import TimePlan

SHAPES = ((2, 2, 64), (2, 4, 128), (4, 4, 128), (4, 6, 192), (4, 4, 256), (6, 6, 384), (8, 8, 512), (12, 12, 768))
"""(layers, heads, width) of the models that are considered, by size."""
PICKS = ("layers", "heads", "width", "block_size", "batch_size", "grad_accumulation_steps", "steps", "optimizer",
         "learning_rate", "min_learning_rate", "schedule", "decay_fraction", "warmup_steps", "eval_every", "eval_batches",
         "checkpoint_every", "attention_only")  # fmt: skip
"""The settings that a budget picks."""
VOCABULARIES = ("nano", "byte")
CLOSED = {"char": 1.0, "word": 3.0}  # bytes per token, about, of the vocabularies that are made of the text
LEAST = 15.0  # seconds of a budget: the process takes some to start
MEASURING = 0.08  # of the budget at most for measuring, after the process has started
MOST_MEASURING = 20.0  # seconds
BESIDE = 0.08  # of the time for evaluations, samples, checkpoints
WORSE = 0.02  # bits per byte: a shape that is so much worse than the best one ends the search
RATE = 1.28  # learning rate × width, for Muon: see docs/training.md
FEWEST = 3  # steps


class BatchRule(NamedTuple):
    """A batch is as large as leaves so many `steps`, within `fewest` and `most` rows."""

    fewest: int
    most: int
    steps: int


PICKED, TUNED = BatchRule(8, 64, 600), BatchRule(4, 16, 75)
"""For random weights, and for a model to start from."""


def _batches(pick: bool, schedule: bool) -> BatchRule | None:
    return PICKED if pick else TUNED if schedule else None


@dataclass(frozen=True, slots=True)
class Option:
    """A model that was considered: what the law expects of it in the time. Losses in bits per byte, `bytes_per_token` in the text."""

    settings: TrainingSettings
    shape: GPTConfig
    tokens_per_second: float
    steps: int
    bytes_per_token: float
    text_bytes: int
    bits_per_byte: float
    spread: float

    @property
    def tokens(self) -> int:
        """The tokens that it is trained on."""
        s = self.settings
        return self.steps * s.batch_size * s.grad_accumulation_steps * s.block_size

    @property
    def band(self) -> tuple[float, float]:
        """What the held-out loss will lie between, in bits per byte."""
        return self.bits_per_byte * (1 - self.spread), self.bits_per_byte * (1 + self.spread)

    @property
    def name(self) -> str:
        """Such as `4 × 128, nano`."""
        return f"{self.settings.layers} × {self.settings.width}, {self.settings.tokenizer}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run with a time budget will be: its settings; the options, the picked one first (a single one where nothing was
    picked); how many of them were measured, not extrapolated; and the seconds that measuring took."""

    settings: TrainingSettings
    options: tuple[Option, ...]
    measured: int
    seconds: float
    device: str

    @property
    def picked(self) -> Option:
        return self.options[0]

    def begin(self, run: Run) -> None:
        """Writes the first plan of a run that was just created. Raises `UserError` if it can't be written."""
        time_plan.write(run, [TimePlan(0, 0.0, self.settings.steps, round(self.seconds, 3))])


def check(minutes: float) -> None:
    """Raises `UserError` if no run can have such a budget."""
    if 60 * minutes < LEAST:
        raise UserError(
            f"{minutes:g} minutes are too few: the process takes some seconds to start; give {LEAST / 60:g} or more"
        )


def conflict(given: Mapping[str, Any], preset: str) -> tuple[str, str] | None:
    """The given setting that contradicts a time budget, and why, as one line; None if none does."""
    if "steps" in given:
        return "steps", "minutes and steps both say when the run ends; give one of them"
    for name in PICKS if preset == BUDGET and not given.get("from_model") else ():
        if name in given:
            words = name.replace("_", " ")
            return (
                name,
                f"the minutes pick the {words}; leave that out, or name a preset too, such as small, to give its {words}",
            )
    return None


def start_preset(preset: str, given: Mapping[str, Any]) -> TrainingSettings:
    """The settings that `given` is applied to. A budget that begins with a trained model has the preset `shakespeare`'s schedule."""
    base = PRESETS[preset]
    if preset != BUDGET or not given.get("from_model"):
        return base
    tuned = PRESETS["shakespeare"]
    kept = {name: getattr(base, name) for name in ("from_model", "minutes", "sample_prompt", "sample_tokens")}
    return dataclasses.replace(tuned, **kept)


def plan(
    settings: TrainingSettings,
    shape: GPTConfig,
    corpus: Sequence[str],
    device: str,
    *,
    pick: bool,
    schedule: bool = False,
    own_tokenizer: bool = False,
    say: Callable[[str], object] = lambda _: None,
    owner: Callable[[BudgetMeasurement], object] = lambda _: None,
) -> Plan:
    """Measures the machine and returns the plan of a run with these settings, whose `minutes` are its budget.

    With `pick`, the shape, the vocabulary (unless `own_tokenizer`: the settings') and the schedule are picked; with `schedule` the
    batch and the steps between evaluations only, as for a model to start from. `say` gets a line
    for each measured shape, `owner` the process, which it may cancel. Raises `UserError` if nothing can be measured, or if too few steps fit.
    """
    check(settings.minutes)
    began = time.monotonic()
    names: Sequence[str] = ()
    wanted = [(settings, shape)]
    if pick:
        names = (settings.tokenizer,) if own_tokenizer else VOCABULARIES
        sizes = {name: shape.vocabulary if own_tokenizer else vocabulary_size(name) for name in names}
        wanted = _candidates(settings, sizes)
    measurement = BudgetMeasurement(wanted, corpus, settings, [name for name in names if name not in CLOSED], device)
    owner(measurement)
    budget, options = 60 * settings.minutes, list[Option]()
    text: dict[str, Any] = {}
    place, left = device, 0.0
    with measurement:
        for found in measurement.results():
            if "text" in found:
                text = {**found["text"], "bytes_per_token": CLOSED | found["text"]["bytes_per_token"]}
                continue
            place, started = found["device"], measurement.started or 0.0
            left = (1 - BESIDE) * max(0.0, budget - measurement.seconds - 2 * started)  # the worker has to start too
            options.append(
                option(wanted[found["shape"]], found["tokens_per_second"], left, text, _batches(pick, schedule))
            )
            say(line(options[-1]) if pick else speed_line(options[-1]))
            if not pick or _enough(options, len(names), measurement.seconds, budget):
                break
    if not options:
        raise UserError("the machine was not measured; try again, or give --steps instead of --minutes")
    measured = len(options)
    options += _extrapolated(options, wanted[measured:], left, text)
    options.sort(key=lambda one: one.bits_per_byte)
    best = options[0]
    if best.steps < FEWEST:
        seconds = best.tokens / max(1, best.steps) / best.tokens_per_second
        raise UserError(
            f"{settings.minutes:g} minutes on {place} are enough for {counted(best.steps, 'step')} of {duration(seconds)} of this model; give "
            "more minutes, a smaller model or smaller batches"
        )
    return Plan(best.settings, tuple(options), measured, time.monotonic() - began, place)


def _extrapolated(
    options: Sequence[Option],
    wanted: Sequence[tuple[TrainingSettings, GPTConfig]],
    seconds: float,
    text: Mapping[str, Any],
) -> list[Option]:
    """Larger shapes that there was no time to measure, at the speed of the largest measured one per operation."""
    found = []
    for settings, shape in wanted:
        known = [one for one in options if one.settings.tokenizer == settings.tokenizer]
        if known:
            last = known[-1]
            ratio = _flops(last.shape, last.settings) / _flops(shape, settings)
            found.append(option((settings, shape), last.tokens_per_second * ratio, seconds, text, PICKED))
    return found


def _flops(shape: GPTConfig, settings: TrainingSettings) -> int:
    return cost.flops_per_token(shape, settings.block_size)


def _enough(options: list[Option], vocabularies: int, seconds: float, budget: float) -> bool:
    """Whether larger shapes need no measuring: they get worse, or the time for it is over."""
    if seconds > min(MOST_MEASURING, MEASURING * budget):
        return True
    best = min(one.bits_per_byte for one in options)
    newest = options[-vocabularies:]
    return len(options) >= 2 * vocabularies and all(one.bits_per_byte > best + WORSE for one in newest)


def _candidates(settings: TrainingSettings, sizes: Mapping[str, int]) -> list[tuple[TrainingSettings, GPTConfig]]:
    """Each shape with each vocabulary, of so many tokens, that the architecture switches can have. Raises `UserError` if there is none."""
    found, why = [], UserError("no model can be picked")
    for size in SHAPES:
        for name, count in sizes.items():
            try:
                found.append(candidate(settings, name, count, *size))
            except UserError as error:  # such as gqa=4 with 2 heads
                why = error
    if not found:
        raise why
    return found


def candidate(
    base: TrainingSettings, tokenizer: str, vocabulary: int, layers: int, heads: int, width: int
) -> tuple[TrainingSettings, GPTConfig]:
    """The settings and the shape of a model that is considered, with a batch that is still to be chosen."""
    rate = RATE / width
    settings = dataclasses.replace(
        base, tokenizer=tokenizer, layers=layers, heads=heads, width=width, learning_rate=rate, min_learning_rate=0.0,
        block_size=128 if width < 256 or tokenizer != "nano" else 256, batch_size=PICKED.fewest,
    )  # fmt: skip
    return settings, cost.shape(settings, vocabulary)


def option(
    model: tuple[TrainingSettings, GPTConfig],
    rate: float,
    seconds: float,
    text: Mapping[str, Any],
    batches: BatchRule | None,
) -> Option:
    """What a model gives in `seconds` of training at `rate` tokens per second. `batches` is None where the batch is given."""
    settings, shape = model
    tokens = rate * seconds
    per_token = float(text.get("bytes_per_token", {}).get(settings.tokenizer, 0.0))
    size = int(text.get("bytes", 0))
    if batches is not None:
        rows = batches.fewest
        while rows < batches.most and tokens / (2 * rows * settings.block_size) >= batches.steps:
            rows *= 2
        settings = dataclasses.replace(settings, batch_size=rows)
    steps = max(1, int(tokens / (settings.batch_size * settings.grad_accumulation_steps * settings.block_size)))
    settings = scheduled(dataclasses.replace(settings, steps=steps), seconds, by_time=batches is not None)
    parameters = shape.parameters() - shape.position_weights
    train = size * (1 - settings.validation_fraction)
    expected = LAW.bits_per_byte(parameters, tokens * per_token, train, per_token) if per_token and size else math.nan
    return Option(settings, shape, rate, steps, per_token, size, expected, LAW.spread)


def scheduled(settings: TrainingSettings, seconds: float, *, by_time: bool) -> TrainingSettings:
    """The settings with a warm-up as `MOST_WARM_UP` limits it; with `by_time` also with evaluations and checkpoints by time."""
    warm_up = min(settings.warmup_steps, max(1, settings.steps // MOST_WARM_UP["warmup_steps"]))
    if not by_time:
        return dataclasses.replace(settings, warmup_steps=warm_up)
    evaluations = max(4, min(20, round(seconds / 15)))
    every = max(1, settings.steps // evaluations)
    return dataclasses.replace(
        settings, warmup_steps=min(20, warm_up), eval_every=every, checkpoint_every=every * max(1, evaluations // 4),
        eval_batches=max(1, 32 // settings.batch_size),
    )  # fmt: skip


def speed_line(option: Option) -> str:
    return f"{option.tokens_per_second:,.0f} tokens/s: about {option.steps:,} steps"


def line(option: Option) -> str:
    """A measured shape in one line."""
    return (
        f"{option.name}: {option.shape.parameters() / 1e6:.2f}M parameters, {option.tokens_per_second:,.0f} tokens/s, "
        f"{option.tokens / 1e6:.2f}M tokens → {option.bits_per_byte:.2f} bits per byte"
    )


def rows(plan: Plan, preset: str) -> list[tuple[str, str]]:
    """What a plan is and why, as rows of a table: name, words."""
    best, s = plan.picked, plan.settings
    picked = preset == BUDGET and not s.from_model
    shape = f"{s.layers} layers, {s.heads} heads, width {s.width}, vocabulary {s.tokenizer}: {best.shape.parameters():,} parameters"
    steps = f"about {best.steps:,} steps of {s.batch_size} × {s.block_size} tokens"
    found = [
        ("time", f"{duration(60 * s.minutes)}, with the {duration(plan.seconds)} of measuring {counted(plan.measured, 'model')} on {plan.device}"),
        ("picked" if picked else "model", shape),
        ("schedule", f"{steps} by the clock; {s.optimizer} at {s.learning_rate:g}, {_decay(s)}"),
    ]  # fmt: skip
    if math.isfinite(best.bits_per_byte):
        low, high = best.band
        nats = " to ".join(f"{value * best.bytes_per_token * math.log(2):.2f}" for value in (low, high))
        others = [one for one in plan.options if one.name != best.name][:2]
        worse = ", ".join(f"{one.name} {one.bits_per_byte - best.bits_per_byte:+.2f}" for one in others)
        epochs = best.tokens * best.bytes_per_token / max(1.0, best.text_bytes * (1 - s.validation_fraction))
        found += [
            ("reads", f"{best.tokens:,} tokens, {epochs:.1f} times the text"),
            ("expected", f"{low:.2f} to {high:.2f} bits per byte held out, {nats} nats per token"),
            (
                "because",
                f"the law of parameters and tokens expects the least of it; {worse or 'no other was measured'}",
            ),
        ]
    return [*found, ("text", text_of(plan, preset))]


def summary(plan: Plan) -> str:
    """A plan in one line of at most about 200 characters."""
    best = plan.picked
    words = f"{best.name}: {best.tokens_per_second:,.0f} tokens/s on {plan.device}, about {counted(best.steps, 'step')}, {best.tokens / 1e6:.2f}M tokens"
    if not math.isfinite(best.bits_per_byte):
        return words
    low, high = best.band
    others = ", ".join(f"{one.name} {one.bits_per_byte - best.bits_per_byte:+.2f}" for one in plan.options[1:3])
    return f"picked {words} → {low:.2f} to {high:.2f} bits per byte ({others or 'no other was measured'})"


def text_of(plan: Plan, preset: str) -> str:
    """What text to expect of a plan."""
    loss = plan.picked.bits_per_byte
    return expected_text(loss) if math.isfinite(loss) else promise(preset)


def _decay(settings: TrainingSettings) -> str:
    if settings.schedule == "wsd":
        return (
            f"decayed to {settings.min_learning_rate:g} over the last {100 * settings.decay_fraction:.0f} % of the time"
        )
    return f"a cosine to {settings.min_learning_rate:g} over the time"


def finite(value: float) -> float | None:
    """The value; None for NaN."""
    return value if math.isfinite(value) else None


def extend(run: Run, minutes: float) -> None:
    """Gives a run without a live worker another time budget: the rest of its schedule is spread over what is then left.

    Raises `UserError` if a worker is training it, if it has no time budget, or if that time is over already.
    """
    check(minutes)
    config = run.config()
    if not config.settings.minutes:
        raise UserError(f"run {run.name} ends by its number of steps; give --steps instead of --minutes")
    plans, done = time_plan.read(run), launch.resume_step(run)
    used, at = _used(run, done), [one for one in plans if one.step <= done]
    if 60 * minutes <= used:
        raise UserError(f"run {run.name} has used {duration(used)}; give more minutes than that")
    share = min(1.0, used / (60 * minutes))
    steps = done + max(1, round(done * (1 - share) / max(share, 1e-6))) if done else config.settings.steps
    settings = from_fields({"minutes": minutes, "steps": steps}, config.settings)
    launch.check_not_training(run)
    # The plan first: after a kill in between, the same command does both.
    time_plan.write(run, [*[one for one in at if one.step < done], TimePlan(done, share, steps, round(used, 3))])
    launch.rewrite(run, settings)


def _used(run: Run, done: int) -> float:
    """The seconds that the run had used at its checkpoint of step `done`."""
    from tui_llm.common.foreign_files import read_json

    with suppress(UserError, KeyError, TypeError, ValueError):
        return float(read_json(run.path / f"checkpoint-{done}" / "training.json")["seconds"])
    plans = time_plan.read(run)
    return plans[0].seconds if plans else 0.0
