"""Is the learning rate that `find-lr` picks as good as the best of a grid? On two corpora.

    python scripts/figures_find_lr.py [--corpus FILE] [--preset toy] [--steps N] [--seconds 60] [--optimizer muon]

For each corpus: finds a rate, then trains the whole run with it, and with 7 rates a factor of 2 apart around the preset's
own. Prints the last validation loss of each, and the pick's relative to the best of the grid: the goal is at most 1.01.
The runs use the seed of the preset, so that a machine whose trials are as long as the run gives the same figures again.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import platform
import sys
import time
from typing import Any

POINTS, FACTOR, GOAL = 7, 2.0, 1.01


def trained(settings: Any, corpus: str, rate: float) -> float:
    """The last validation loss of a whole run, in nats per token; infinite where it diverged."""
    from tui_llm.training.plan.scratch_run import ScratchRun
    from tui_llm.training.worker import inputs, objectives
    from tui_llm.training.worker.distributed import Ranks
    from tui_llm.training.worker.loop import Diverged
    from tui_llm.training.worker.replay_state import ReadingWorker

    s = dataclasses.replace(settings, learning_rate=rate, eval_every=settings.steps, compile="off")
    scratch, last = ScratchRun(s, [corpus], "cpu"), math.inf
    try:
        worker = ReadingWorker(scratch.run, lambda _text: None)
        loaded = inputs.load(worker)
        model = inputs.random_model(worker, loaded)
        model.used = loaded.tokenizer.size
        for metric in objectives.trainer(loaded, model, s, Ranks()).steps():
            last = metric.val_loss if metric.val_loss is not None else last
        return last
    except Diverged:
        return math.inf
    finally:
        scratch.delete()


def compare(corpus: str, options: argparse.Namespace) -> bool:
    """Prints a corpus's table. Returns whether the goal is met."""
    from tui_llm.training.plan.find_lr import RateFinder, RateResult, basis, tried_settings

    given = {
        key: value
        for key in ("steps", "optimizer", "width", "layers", "batch_size")
        if (value := getattr(options, key))
    }
    settings, _ = tried_settings(given, options.preset, [corpus])
    began, found = time.perf_counter(), RateResult()
    for record in RateFinder(settings, [corpus], "cpu", seconds=options.seconds).records():
        found.add(record)
    took = time.perf_counter() - began
    assert found.pick is not None
    pick = found.pick
    print(
        f"\n{corpus}: {options.preset}, {settings.steps:,} steps, {settings.optimizer}; found in {took:.0f} s with all loading"
    )
    for line in basis(pick):
        print(f"  {line}")
    own = settings.learning_rate
    rates = [own * FACTOR ** (k - POINTS // 2) for k in range(POINTS)]
    losses = {rate: trained(settings, corpus, rate) for rate in rates}
    best = min(losses.values())
    loss = trained(settings, corpus, pick.rate)
    for rate, one in losses.items():
        mark = "best of the grid" if one == best else ""
        print(f"  rate {rate:<10.4g} loss {one:.4f}  ÷ best {one / best:.4f}  {mark}")
    met = loss / best <= GOAL
    print(
        f"  pick {pick.rate:<10.4g} loss {loss:.4f}  ÷ best {loss / best:.4f}  goal ≤ {GOAL}  {'met' if met else 'NOT MET'}",
        flush=True,
    )
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", action="append", help="a name or a file (default: python-reference and stories)")
    parser.add_argument("--preset", default="toy")
    parser.add_argument("--optimizer")
    for name in ("steps", "width", "layers", "batch-size"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    import torch

    torch.set_flush_denormal(True)
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    )
    met = [compare(corpus, options) for corpus in options.corpus or ("python-reference", "stories")]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
