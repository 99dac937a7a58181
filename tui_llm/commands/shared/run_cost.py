"""What `tui-llm train --cost` prints: parameters, memory, tokens, operations; with `--measure` the time."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.output import put, put_json, put_sentences

if TYPE_CHECKING:
    from pathlib import Path

    from tui_llm.llm.model.shape import GPTConfig
    from tui_llm.training.plan.budget import Plan
    from tui_llm.training.run.settings import TrainingSettings

Measured = tuple[dict[str, Any], list[str]]
"""What was measured as plain data, and in lines for people."""


def show_cost(
    settings: TrainingSettings,
    shape: GPTConfig,
    options: argparse.Namespace,
    corpus: Sequence[str],
    model: Path | None,
    preset: str,
    plan: Plan | None = None,
) -> None:
    """Prints what a run would cost, and with `--measure` what time it takes. `corpus` may be empty; `model` is the folder of the model
    that it starts from; `plan` is that of a run with a time budget."""
    from dataclasses import asdict

    from tui_llm.commands.shared import budget
    from tui_llm.common.numbers import memory_size
    from tui_llm.facts.tokens import BYTES_AND_END
    from tui_llm.training.plan.cost import BESIDE, cost
    from tui_llm.training.run.promises import promise_of

    found = cost(settings, shape)
    measured: Measured = {}, []
    if options.measure and corpus:
        measured = _measure_run(settings, corpus, model, options)
    elif options.measure:
        measured = _measure_shape(settings, shape, found.tokens, options)
    if options.json:
        more: dict[str, Any] = {"measured": measured[0]} if measured[0] else {}
        more |= {"budget": budget.as_json(plan)} if plan else {"text": promise_of(preset, settings)}
        put_json({**asdict(found), "memory_bytes": found.memory_bytes, **more})
        return
    byte = f": {BYTES_AND_END}" if settings.tokenizer == "byte" else ""
    rows = [
        ("parameters", f"{found.parameters:,}", f"vocabulary {shape.vocabulary:,}{byte}"),
        ("memory", memory_size(found.memory_bytes), f"{memory_size(found.state_bytes)} weights, gradients and optimizer state, about "
         f"{memory_size(found.activation_bytes)} activations, in float32; {BESIDE}"),
        ("tokens", f"{found.tokens:,}", f"{settings.steps:,} steps of {found.most}{found.step_tokens:,}"),
        ("operations", f"{found.flops:.2e}", f"floating-point, {found.flops_per_weight} · N a token and the attention{', at most' if found.most else ''}"),
    ]  # fmt: skip
    if plan is None and not found.most and (text := promise_of(preset, settings)):
        rows.append(("text", "", f"to expect: {text}"))
    put_sentences(("cost", "", ""), rows, left=(0, 2))
    if plan is not None:
        budget.show_plan(plan, preset)
    for line in measured[1]:
        put(line)


def _measure_run(
    settings: TrainingSettings, corpus: Sequence[str], model: Path | None, options: argparse.Namespace
) -> Measured:
    """Begins the run in a process that always ends, after Ctrl+C too."""
    from dataclasses import asdict

    from tui_llm.training.plan.run_time import RunTimeMeasurement, lines
    from tui_llm.training.run import pins

    pinned = list(map(pins.parse, options.pin or ()))
    measurement = RunTimeMeasurement(settings, corpus, options.device or "auto", model, pinned)
    try:
        found = measurement.take()
    finally:
        measurement.cancel()
    low, high = found.band
    plain = {
        **asdict(found),
        "steps": found.steps_measured,
        "tokens_per_second": found.tokens_per_second,
        "seconds": found.seconds,
        "low": low,
        "high": high,
        "shares": found.shares,
    }
    return plain, ["", *lines(found, settings.batch_size)]


def _measure_shape(settings: TrainingSettings, shape: GPTConfig, tokens: int, options: argparse.Namespace) -> Measured:
    """Without a text: the speed of the model on random tokens, for the steps alone."""
    from dataclasses import asdict

    from tui_llm.common.numbers import duration
    from tui_llm.training.plan.step_time import Measurement

    measurement = Measurement(settings, shape, options.device or "auto")
    try:
        rate = measurement.take()
    finally:
        measurement.cancel()
    fewer = f", with {_rows(rate.rows)} at a time" if rate.rows < settings.batch_size else ""
    seconds = rate.seconds(tokens)
    lines = [
        "",
        f"{duration(seconds)} for all steps, without starting, evaluations and checkpoints: name the text to have them measured",
        f"{rate.tokens_per_second:,.0f} tokens/s on {rate.device}, in {rate.steps} measured steps{fewer}",
    ]
    return {**asdict(rate), "seconds": seconds}, lines


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
