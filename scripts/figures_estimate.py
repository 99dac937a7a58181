"""Does the estimate of a run's time hold? Estimates ten short different runs, trains each, and compares.

    python scripts/figures_estimate.py [--runs 10] [--corpus NAME] [--seconds 8]

The real time is from starting the worker until the run is finished. The goal: in 8 of 10 runs it lies in the band.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from typing import Any

RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("toy", {"steps": 300}),
    ("toy", {"steps": 600, "eval_every": 20}),
    ("toy", {"steps": 200, "batch_size": 64, "checkpoint_every": 10}),
    ("toy", {"steps": 300, "optimizer": "muon"}),
    ("toy", {"steps": 150, "dropout": 0.1}),
    ("small", {"steps": 60, "eval_every": 20}),
    ("small", {"steps": 40, "grad_accumulation_steps": 2, "sample_tokens": 200, "eval_every": 5}),
    ("small", {"steps": 80, "tokenizer": "byte", "precision": "fp32"}),
    ("toy", {"steps": 400, "layers": 6}),
    ("toy", {"steps": 120, "width": 256, "heads": 4, "block_size": 128, "eval_batches": 32}),
)


def trained(name: str, corpus: str, settings: Any, preset: str) -> float:
    """The seconds of a whole run, from the start of its worker to the end."""
    from tui_llm.training.plan import launch

    run = launch.create(name, [corpus], settings, preset=preset, device="cpu")
    began = time.perf_counter()
    launch.start(run)
    while run.status().state not in ("finished", "failed", "stopped"):
        time.sleep(0.05)
    took = time.perf_counter() - began
    if run.status().state != "finished":
        raise SystemExit(f"run {name}: {run.status().message}")
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=len(RUNS))
    parser.add_argument("--from", dest="first", type=int, default=0, help="leave out the runs before this one, from 0")
    parser.add_argument("--corpus", default="stories")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each measurement")
    options = parser.parse_args()
    os.environ["TUI_LLM_HOME"] = tempfile.mkdtemp(prefix="estimates-")
    from tui_llm.training.plan.fields import resolve_settings
    from tui_llm.training.plan.run_time import RunTimeMeasurement
    from tui_llm.training.run.settings import PRESETS

    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    inside, chosen = 0, RUNS[options.first : options.first + options.runs]
    for number, (preset, given) in enumerate(chosen):
        given = {"learning_rate": PRESETS[preset].learning_rate, **given}
        settings, _, _ = resolve_settings(given, PRESETS[preset], [options.corpus])
        found = RunTimeMeasurement(settings, [options.corpus], "cpu", seconds=options.seconds).take()
        low, high = found.band
        took = trained(f"run-{number}", options.corpus, settings, preset)
        held = low <= took <= high
        inside += held
        print(
            f"{preset:6} {', '.join(f'{key} {value}' for key, value in given.items() if key != 'learning_rate'):60} "
            f"estimate {found.seconds:6.1f} s, band {low:5.1f} to {high:6.1f} s, contention {found.contention or 0:.2f}; "
            f"took {took:6.1f} s ({took / found.seconds:.2f} of it)  {'in' if held else 'OUT'}",
            flush=True,
        )
    goal = 0.8 * len(chosen)
    print(f"{inside} of {len(chosen)} in the band, goal ≥ {goal:g}: {'met' if inside >= goal else 'NOT MET'}")
    return 0 if inside >= goal else 1


if __name__ == "__main__":
    sys.exit(main())
