"""The parts decode, typing and training of `tui-llm bench`: rates here and in transformers, the share of the machine's, the goals."""

from __future__ import annotations

import argparse
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tui_llm.commands.shared.output import put
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from tui_llm.llm.learn.speed import Amounts, Backend
    from tui_llm.llm.model.shape import GPTConfig

_DISTURBED = "its peak was measured beside other programs; it is measured again next time"
PEERS = ("ctranslate2", "llama.cpp", "transformers")
TRAINING_SECONDS = 60.0  # at most, for the training steps: on two cores one row of GPT-2 takes three, the first more
# The speed-up over transformers that is the goal on two cores, for GPT-2 124M's shape: fp32 over its fp32, the others over its
# faster dtype.
GOALS = {
    ("decode", "fp32"): 1.3, ("decode", "half"): 2.0, ("decode", "int8"): 3.5,
    ("typed token", "fp32"): 1.3, ("typed token", "half"): 2.0,
    ("changed token", "fp32"): 3.0,
}  # fmt: skip


class MeasuredModel(NamedTuple):
    name: str
    config: GPTConfig
    readers: dict[str, Backend]  # fp32, half, int8; transformers fp32, transformers bf16


def kinds(options: argparse.Namespace) -> tuple[str, ...]:
    """The dtypes of the weights to measure. Raises `UserError`."""
    from tui_llm.llm.model.weight_names import WEIGHTS, check_weights

    if options.weights is None:
        return tuple(WEIGHTS) if options.against else ("fp32",)
    return tuple(dict.fromkeys(check_weights(name.strip()) for name in options.weights.split(",")))


def check(options: argparse.Namespace) -> None:
    """Checks all options before anything takes time. Raises `UserError`."""
    kinds(options)
    peers_of(options)
    if options.model and options.preset:
        raise UserError("give --model or --preset, not both")
    for name in ("rounds", "tokens", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}; give 1 or more")
    if options.preset:
        from tui_llm.training.run.settings import preset

        preset(options.preset)


def peers_of(options: argparse.Namespace) -> tuple[str, ...]:
    """The sides that --against names. Raises `UserError` if one is unknown or not installed."""
    if options.against is None:
        return ()
    import importlib.util

    from tui_llm.llm.adapters.peers import EXTRA, MODULES

    names = tuple(dict.fromkeys(name.strip() for name in options.against.split(",")))
    for name in names:
        if name not in PEERS:
            raise UserError(f"--against is {name!r}; the choices are: {', '.join(PEERS)}")
    for name in names:
        if importlib.util.find_spec(MODULES[name]) is None:
            raise UserError(f"--against {name} needs the Python package of {name}, which is not installed: {EXTRA}")
    return names


def _vocabulary(tokenizer: str) -> int:
    if (known := {"gpt2": 50257, "byte": 257}.get(tokenizer)) is not None:
        return known
    from tui_llm.llm.hub import lookup
    from tui_llm.llm.model.model_config import read_config

    return read_config(lookup.find(tokenizer).folder).vocabulary


def shape_of(options: argparse.Namespace) -> tuple[str, GPTConfig, Path | None]:
    """The model's or preset's name, its shape, and the model's folder."""
    if options.preset:
        from tui_llm.training.plan.cost import shape
        from tui_llm.training.run.settings import preset

        settings = preset(options.preset)
        return f"{options.preset}, random weights", shape(settings, _vocabulary(settings.tokenizer)), None
    from tui_llm.llm.hub import lookup
    from tui_llm.llm.model.model_config import read_config

    found = lookup.find(options.model or "nano")
    return found.name, read_config(found.folder), found.folder


def opened(options: argparse.Namespace) -> MeasuredModel:
    name, config, folder = shape_of(options)
    return _opened(name, config, folder, options.device, kinds(options), options.against)


@lru_cache(1)  # decode and typing measure the same models
def _opened(name: str, config: GPTConfig, folder: Path | None, device_name: str, weights: tuple[str, ...], against: str | None) -> MeasuredModel:  # fmt: skip
    import tempfile
    from pathlib import Path

    import torch

    from tui_llm.llm.learn.speed import OwnBackend, Transformers
    from tui_llm.llm.model import checkpoint, device
    from tui_llm.llm.model.model import GPT

    place = device.choose(device_name)
    with tempfile.TemporaryDirectory() as scratch:
        if folder is None:
            torch.manual_seed(0)
            checkpoint.save(GPT(config), folder := Path(scratch))
        readers: dict[str, Backend] = {kind: OwnBackend(folder, place, kind) for kind in weights}
        if "transformers" in (against or "").split(","):
            for label, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
                readers[f"transformers {label}"] = Transformers(folder, place, dtype)
    return MeasuredModel(name, config, readers)


def measure_decode(options: argparse.Namespace) -> dict[str, Any]:
    return _measure(options, "decode")


def measure_typing(options: argparse.Namespace) -> dict[str, Any]:
    return _measure(options, "typing")


def _measure(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    import random

    from tui_llm.llm.learn import speed
    from tui_llm.llm.model import device
    from tui_llm.llm.model.machine import machine
    from tui_llm.llm.model.weight_names import WEIGHTS

    at_best = machine(device.choose(options.device))
    open, clock = opened(options), time.process_time if options.cpu_time else time.perf_counter
    amounts = speed.Amounts.of(open.config.context, written=options.tokens)
    ids = random.Random(0).choices(range(open.config.vocabulary), k=amounts.context + amounts.prompt + 1)
    sides = {name: speed.works(reader, ids, amounts, kind, clock) for name, reader in open.readers.items()}
    rows = []
    for work in next(iter(sides.values())):
        taken = list(speed.in_turn({name: side[work] for name, side in sides.items()}, options.rounds))
        seconds = speed.medians(taken)
        peers = {name: seconds[name] for name in seconds if name not in WEIGHTS}
        for dtype in (name for name in seconds if name in WEIGHTS):
            least = speed.least_seconds(open.config, *_amount(work, amounts), dtype, at_best)
            rival = None
            if peers:
                rival = "transformers fp32" if dtype == "fp32" else min(peers, key=lambda name: peers[name])
            rows.append({
                "work": work, "weights": dtype, "seconds": seconds[dtype], "share": speed.roofline_share(least, seconds[dtype]),
                "transformers": {name.split()[-1]: value for name, value in peers.items()},
                "rival": rival, "ratio": rival and speed.ratio(taken, dtype, rival),
                "goal": GOALS.get((work, dtype)) if rival and _is_gpt2(open.config) else None,
            })  # fmt: skip
    return {
        "model": open.name, "parameters": open.config.parameters(), "clock": "cpu" if options.cpu_time else "wall",
        "threads": at_best.threads, "rounds": options.rounds, "prompt": amounts.prompt, "written": amounts.written,
        "context": amounts.context, "changed": amounts.changed, "rows": rows, "no_share": _DISTURBED if at_best.disturbed else "",
    }  # fmt: skip


def _amount(work: str, amounts: Amounts) -> tuple[int, int]:
    """(new tokens, tokens before them) of one timed call; in decode, the average."""
    return {
        "decode": (1, amounts.prompt + amounts.written // 2),
        "first token": (amounts.prompt, 0),
        "typed token": (1, amounts.context - 1),
        "changed token": (amounts.changed, amounts.context - amounts.changed),
    }[work]


def _is_gpt2(config: GPTConfig) -> bool:
    return (config.layers, config.heads, config.width, config.vocabulary) == (12, 12, 768, 50257)


def show_reading(found: dict[str, Any]) -> None:
    from tui_llm.common.display import visible
    from tui_llm.facts import report

    def speed(work: str, seconds: float) -> str:
        return f"{1 / seconds:,.1f} tokens/s" if work == "decode" else f"{seconds * 1000:,.2f} ms"

    against = any(row["rival"] for row in found["rows"])
    cells = []
    for row in found["rows"]:
        share = "–" if row["share"] is None else f"{row['share']:.0%}"
        line = [row["work"], row["weights"], speed(row["work"], row["seconds"]), share]
        if against:
            line += [speed(row["work"], row["transformers"][name]) for name in ("fp32", "bf16")]
            line += [f"{row['ratio']:.2f}×", "–" if row["goal"] is None else f"≥ {row['goal']}×"]
        cells.append(tuple(line))
    head = ("work", "weights", "here", "of the machine")
    put(
        f"{visible(found['model'])}: {found['parameters']:,} parameters; {found['prompt']} + {found['written']} tokens for "
        f"decode, {found['prompt']} for the first token, {found['context']} of context for typing, the last "
        f"{found['changed']} of them changed"
    )
    put(
        f"medians of {found['rounds']} rounds in turn, {found['clock']} time, {found['threads']} threads; int8 results differ"
    )
    put(report.table((*head, "transformers fp32", "bf16", "times faster", "goal") if against else head, cells, left=(0, 1)))  # fmt: skip
    if any(row["share"] is None for row in found["rows"]):
        put(f"– of the machine: {found['no_share'] or 'faster than its memory, so the weights lie in the cache'}")
    if against:
        put(
            "times faster: fp32 than transformers' fp32, half and int8 than its faster one; each side on the same weights"
        )


def measure_training(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens/s of training this shape, in a separate process; a few seconds, `TRAINING_SECONDS` for a large model."""
    import dataclasses

    from tui_llm.llm.model import device
    from tui_llm.llm.model.machine import discard, machine
    from tui_llm.training.plan import cost
    from tui_llm.training.plan.step_time import Measurement
    from tui_llm.training.run import gauges
    from tui_llm.training.run.settings import preset

    place = device.choose(options.device)
    name, config, _ = shape_of(options)
    settings = preset(options.preset or "small")
    settings = dataclasses.replace(settings, layers=config.layers, heads=config.heads, width=config.width,
                                   block_size=min(settings.block_size, config.context), compile="off")  # fmt: skip
    at_best = machine(place)
    # With as many threads as the machine's rate was measured with, as for a run's MFU.
    measurement = Measurement(settings, config, str(place), TRAINING_SECONDS, at_best.threads)
    try:
        rate = measurement.take()
    finally:
        measurement.cancel()
    precision = "bf16" if device.trains_in_bfloat16(place) else "fp32"
    flops = cost.flops_per_token(config, settings.block_size)
    facts = {"flops_per_token": flops, "peak_flops": at_best.peak(precision)}
    no_share = "" if at_best.peak(precision) is not None else _DISTURBED
    if gauges.above_peak(facts, rate.tokens_per_second):
        discard(place, precision)
        no_share = "the step was faster than its measured peak, which is discarded and measured again next time"
    return {
        "model": name, "parameters": config.parameters(), "rows": rate.rows, "block_size": settings.block_size,
        "precision": precision, "tokens_per_second": rate.tokens_per_second, "steps": rate.steps,
        "share": gauges.mfu(facts, rate.tokens_per_second), "no_share": no_share,
    }  # fmt: skip


def show_training(found: dict[str, Any]) -> None:
    from tui_llm.common.display import visible

    share = f"no share of the machine (MFU): {found['no_share']}"
    if found["share"] is not None:
        share = f"{found['share']:.0%} of the machine (MFU)"
    put(
        f"training {visible(found['model'])}: {found['tokens_per_second']:,.0f} tokens/s in {found['precision']} products, "
        f"{found['rows']} rows of {found['block_size']} tokens, median of {found['steps']} steps: {share}"
    )
