"""Measure how the time of a reading grows with context, vocabulary and layers, relative to bytes moved and FLOPs.

    python scripts/figures_growth.py [--weights fp32|half|int8] [--rounds 5]

Models have random weights and 12 heads of 64 dimensions. A typed token reads every weight and the whole KV cache once,
so its time is divided by those bytes; the time of reading a whole text is divided by its FLOPs. If the time grows no
faster, the quotient stays equal or falls down the table.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch

from tui_llm.llm.learn import speed
from tui_llm.llm.model import fast_decode
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.predict.window import Window

GROWING = {
    "context": [(tokens, GPTConfig(4096, 1024, 6), tokens) for tokens in (64, 128, 256, 512, 1024)],
    "vocabulary": [(size, GPTConfig(size, 256, 6), 128) for size in (4096, 8192, 16384, 50257)],
    "layers": [(count, GPTConfig(4096, 256, count), 128) for count in (2, 6, 12, 24)],
}


def seconds(work: Callable[[], object], before: Callable[[], object], rounds: int) -> float:
    """Returns the median time in seconds, after one uncounted warm-up."""
    taken = []
    for _ in range(rounds + 1):
        before()
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def measure(config: GPTConfig, tokens: int, weights: str, rounds: int) -> tuple[float, float]:
    """Returns the seconds to the logits: for one token after `tokens` − 1 cached ones, and for all of them at once."""
    torch.manual_seed(0)
    window = Window(fast_decode.predictor(GPT(config).eval().requires_grad_(False), weights), config.vocabulary)
    ids = random.Random(0).choices(range(config.vocabulary), k=tokens)

    def read() -> None:
        window.feed(ids)
        window.logits()

    window.feed(ids)
    typed = seconds(read, lambda: window.crop(tokens - 1), 4 * rounds)
    return typed, seconds(read, lambda: window.crop(0), rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="fp32", choices=("fp32", "half", "int8"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.weights}, medians of {options.rounds}"
    )
    for name, sizes in GROWING.items():
        print(f"\n{name:>10}  a typed token      MB   ms/MB  the whole text  GFLOP  ms/GFLOP")
        for at, config, tokens in sizes:
            typed, whole = measure(config, tokens, options.weights, options.rounds)
            moved = speed.moved(config, 1, tokens - 1, options.weights) / 1e6
            flops = speed.flops(config, tokens, 0) / 1e9
            print(
                f"{at:10,}  {typed * 1e3:10.2f} ms {moved:7.1f} {typed * 1e3 / moved:7.3f} "
                f"{whole * 1e3:12.1f} ms {flops:6.1f} {whole * 1e3 / flops:9.2f}"
            )


if __name__ == "__main__":
    main()
