"""Measure the cost of watching a run, the time to open a very long run, and how a training step's time grows.

    python scripts/figures_training.py [--rounds 3] [--seconds 20] [--only watching|million|growth]

For the first, a worker trains alternately alone and while the real app watches it in a pseudo-terminal of 120×40. Its
speed is steps over wall time, including evaluations and checkpoints. Quote the figures with the machine, and measure on
an idle one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import select
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import Terminal

MILLION = 1_000_000


def row(what: str, value: float, goal: float, unit: str, scale: float = 1.0) -> None:
    mark = "met" if value <= goal else "NOT MET"
    print(f"{what:62} {value * scale:9.3g} {unit:4} goal ≤ {goal * scale:g} {unit}  {mark}", flush=True)


def note(what: str, value: float, unit: str) -> None:
    print(f"{what:62} {value:9.3g} {unit}", flush=True)


def read_on(terminal: Terminal, seconds: float) -> int:
    """Reads the app's output for `seconds`, like a terminal. Returns the number of bytes."""
    end, count = time.perf_counter() + seconds, 0
    while (left := end - time.perf_counter()) > 0:
        if select.select([terminal.fd], [], [], left)[0]:
            count += len(os.read(terminal.fd, 65536))
    return count


# ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def watching(rounds: int, seconds: float) -> None:
    """Alternates A B A B …: the worker alone, and with the app watching it."""
    from tui_llm.training.plan import launch
    from tui_llm.training.run.settings import PRESETS, from_fields

    # A small model's rate of steps and an evaluation every few seconds: more to watch than with a large model.
    settings = from_fields({"steps": 10_000_000, "eval_every": 100, "checkpoint_every": 500}, PRESETS["toy"])
    run = launch.create("watched", ["stories"], settings, preset="toy", device="cpu")
    launch.start(run)

    def stand() -> tuple[int, float]:
        last = run.last_metric()
        return (last.step, last.time) if last else (0, 0.0)

    def rate() -> float:
        """Returns the tokens per second over the next `seconds`."""
        (before, began), _ = stand(), time.sleep(seconds)
        after, ended = stand()
        return (
            (after - before)
            * settings.batch_size
            * settings.block_size
            * settings.grad_accumulation_steps
            / (ended - began)
        )

    try:
        while stand()[0] < 50:
            if run.status().state == "failed":
                raise SystemExit(f"the run failed: {run.status().message}")
            time.sleep(0.2)
        alone, watched, shares, painted = [], [], [], []
        for _ in range(rounds):
            alone.append(rate())
            terminal = Terminal()
            try:
                terminal.wait_for(rb"tokens of nano")
                read_on(terminal, 3.0)  # until the app has found the run and drawn its chart
                cpu, (before, began), at = terminal.cpu_seconds(), stand(), time.perf_counter()
                painted.append(read_on(terminal, seconds) / seconds)
                after, ended = stand()
                shares.append((terminal.cpu_seconds() - cpu) / (time.perf_counter() - at))
                tokens = (after - before) * settings.batch_size * settings.block_size * settings.grad_accumulation_steps
                watched.append(tokens / (ended - began))
                print(
                    f"  {alone[-1]:,.0f} tokens/s alone, {watched[-1]:,.0f} watched; app {shares[-1]:.1%} of a core",
                    flush=True,
                )
            finally:
                terminal.close()
        slower = statistics.median(1 - w / a for a, w in zip(alone, watched, strict=True))
        note("worker alone, median", statistics.median(alone), "tokens/s")
        note("worker with the app watching, median", statistics.median(watched), "tokens/s")
        row("what watching costs the worker, median of pairs", slower, 0.01, "%", 100)
        row("the app's share of one core while it watches, median", statistics.median(shares), 0.05, "%", 100)
        note("bytes painted while it watches", statistics.median(painted), "bytes/s")
    finally:
        launch.stop(run)
        launch.wait_until_gone(run)


# ── a metrics file of a million lines ────────────────────────────────────────────────────────────────────────────────


def write_million(folder: Path) -> Any:
    from tui_llm.training.run.config import RunConfig
    from tui_llm.training.run.run import Run
    from tui_llm.training.run.settings import PRESETS, from_fields

    run = Run(folder)
    run.path.mkdir(parents=True)
    run.write_config(RunConfig(("/texts/tales.txt",), "toy", "cpu", from_fields({"steps": MILLION}, PRESETS["toy"])))
    dice = random.Random(1)
    with run.metrics_path.open("w") as file:
        for step in range(1, MILLION + 1):
            loss = 1.5 + 4 * math.exp(-step / 50_000) + dice.gauss(0, 0.05)
            line = {
                "step": step,
                "loss": loss,
                "lr": 1e-3,
                "grad_norm": 0.5,
                "tokens_per_second": 9e4,
                "time": 1e9 + step,
            }
            file.write(json.dumps(line | ({"val_loss": loss} if step % 1000 == 0 else {})) + "\n")
    run.write_status("finished", "", step=MILLION, steps=MILLION, vocabulary=257, parameters=120_640, device="cpu")
    return run


def million() -> None:
    from tui_llm.common import paths
    from tui_llm.training.plan import launch
    from tui_llm.training.run.snapshot import RunReader

    run = write_million(paths.runs_dir() / "million")
    note("metrics.jsonl of a million lines", run.metrics_path.stat().st_size / 1e6, "MB")
    began = time.perf_counter()
    reader = RunReader(run)
    snapshot = reader.read()
    row("from RunReader to its first snapshot of a million lines", time.perf_counter() - began, 1.0, "s")
    longest = 0.0
    while snapshot.reading:
        at = time.perf_counter()
        snapshot = reader.read()
        longest = max(longest, time.perf_counter() - at)
    note("until all of it is read", time.perf_counter() - began, "s")
    note("points kept of its training loss", len(snapshot.train), "")
    note("the longest of the reads on the way", longest * 1000, "ms")

    with run.metrics_path.open("a") as file:
        file.write(
            '{"step": 1000001, "loss": 1.5, "lr": 1e-3, "grad_norm": 0.5, "tokens_per_second": 9e4, "time": 2e9}\n'
        )
    at = time.perf_counter()
    assert reader.read().last.step == MILLION + 1  # type: ignore[union-attr]
    row("one more line, once all is read", time.perf_counter() - at, 0.1, "ms", 1000)
    terminal = Terminal()
    try:
        terminal.wait_for(rb"Prompt")
        row("in the real app: from its first paint to the drawn chart", terminal.wait_for(rb"training \d"), 1.0, "s")
    finally:
        terminal.close()
    launch.reap()


# ── growth ───────────────────────────────────────────────────────────────────────────────────────────────────────────

GROWTH = {"context": ("block_size", (64, 128, 256, 512, 1024)), "vocabulary": ("vocabulary", (4096, 16384, 50304)),
          "layers": ("layers", (2, 6, 12, 24))}  # fmt: skip
SLACK = 1.15  # factor by which a step's time may grow faster than its FLOPs: noise and cache effects


def growth(steps: int = 3) -> None:
    """Measures the CPU time on one thread of a step of 1,024 tokens and its FLOPs, as one dimension grows."""
    import torch

    from tui_llm.training.plan import cost
    from tui_llm.training.worker import versus

    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    for what, (field, values) in GROWTH.items():
        first = None
        for value in values:
            fields = {"layers": 4, "heads": 4, "width": 256, "block_size": 256, "vocabulary": 4096, field: value}
            shape = versus.Shape(batch_size=1024 // fields["block_size"], **fields)
            step, taken = versus.ours(shape), []
            for _ in range(3):  # warm up: memory touched for the first time is slow
                step()
            for _ in range(steps):
                began = time.process_time()
                step()
                taken.append(time.process_time() - began)
            flops = 1024 * cost.flops_per_token(cost.shape(shape.settings(), shape.vocabulary), shape.block_size)
            seconds = statistics.median(taken)
            first = first or (seconds, flops)
            slower, more = seconds / first[0], flops / first[1]
            mark = "as they do, or less" if slower <= SLACK * more else "FASTER THAN THEY DO"
            print(f"{what:10} {value:6,}  {seconds * 1000:7.1f} ms {flops / 1e9:7.1f} GFLOP {flops / seconds / 1e9:5.0f} GFLOP/s"
                  f"   time × {slower:5.2f}, operations × {more:5.2f}: grows {mark}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", choices=("watching", "million", "growth"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tui-llm-figures-") as home:
        os.environ["TUI_LLM_HOME"] = home
        load = os.getloadavg()[0]
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f} at the start"
        )
        if options.only in (None, "growth"):
            growth()
        if options.only in (None, "million"):
            million()
        if options.only in (None, "watching"):
            watching(options.rounds, options.seconds)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
