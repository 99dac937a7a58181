"""Measure the patch grid: nano's whole, and of GPT-2 124M's shape the first cells and how soon it stops.

    python scripts/figures_patch.py [--threads 2] [--tokens 60] [--rounds 5] [--json]

Wall-clock seconds, medians, on a machine that does nothing else. Both texts are random tokens that differ in the second one,
so that every later token's values differ; 124M has random weights. To stop is measured from the moment at which the answer
is no longer wanted, at ten moments of each round.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable

import torch

from tui_llm.common import paths
from tui_llm.common.errors import Overtaken
from tui_llm.llm.model import checkpoint, device, fast_decode, patching
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig

SHAPE = GPTConfig(vocabulary=50257, context=1024, layers=12, heads=12, width=768)


def texts(vocabulary: int, tokens: int) -> tuple[list[int], list[int]]:
    """Returns two texts that differ in their second token."""
    draw = random.Random(1)
    clean = [draw.randrange(vocabulary) for _ in range(tokens)]
    return clean, [clean[0], (clean[1] + 1) % vocabulary, *clean[2:]]


def batches(model: GPT, kind: str, tokens: int) -> list[patching.Cells]:
    cost = 4 * model.config.width**2 + 2 * model.config.width * model.config.hidden
    return patching.plan(kind, model.config.layers, tokens, 0, 1, cost)[0]


def cells(
    model: GPT, kind: str, tokens: int, stop: Callable[[], bool] = lambda: False, most: int | None = None
) -> None:
    """Computes the grid, or its first `most` batches. Raises `Overtaken` as soon as `stop()` returns true."""
    clean, changed = texts(model.config.vocabulary, tokens)
    shared = patching.Patching(model, clean, changed, kind, (5, 9), stop)
    for batch in batches(model, kind, tokens)[:most]:
        if stop():
            raise Overtaken
        shared.effects(batch, stop)


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Returns the median, after one uncounted warm-up."""
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def stopping(model: GPT, tokens: int, rounds: int) -> float:
    """Returns the longest time from the moment of stopping to the end."""
    longest = 0.0
    for number in range(10 * rounds):
        after = 0.05 + 3.0 * number / (10 * rounds)
        began = time.perf_counter()
        try:
            cells(model, patching.RESIDUAL, tokens, lambda until=began + after: time.perf_counter() > until)
        except Overtaken:
            longest = max(longest, time.perf_counter() - began - after)
    return longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device.use_threads(options.threads)
    nano = checkpoint.load(paths.shipped_models_dir() / "nano", torch.device("cpu")).eval()
    torch.manual_seed(1)
    large = GPT(SHAPE).eval()
    for model in (nano, large):
        fast_decode.prepare(model, "fp32")
    found = {
        f"nano, {options.tokens} tokens: {kind}": seconds(lambda kind=kind: cells(nano, kind, options.tokens), options.rounds)
        for kind in patching.KINDS
    }  # fmt: skip
    name = f"124M's shape, {options.tokens} tokens: "
    found[name + "first cells"] = seconds(
        lambda: cells(large, patching.RESIDUAL, options.tokens, most=2), options.rounds
    )
    found[name + "stopped, longest"] = stopping(large, options.tokens, max(1, options.rounds // 5))
    if options.json:
        print(json.dumps(found))
        return
    for what, taken in found.items():
        print(f"{what:44} {taken:8.3f} s")


if __name__ == "__main__":
    main()
