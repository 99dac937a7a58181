"""Measure how soon the first number is there, and print each time as a ratio to that of `python -c "import torch"`.

    python scripts/start.py [ROUNDS] [--json]

Everything is started in turn, ROUNDS times (default 5). A line has the median and the lowest ratio of the wall time to
that of `import torch` (for the first paint: `import textual.app`) in the same round, the same for processor time, and whether
the median of the wall time meets the goal. Compiled modules are used: unset PYTHONDONTWRITEBYTECODE.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from figures import Terminal

Times = tuple[float, float]  # seconds of wall time and of processor time

TORCH, TEXTUAL = "import torch", "import textual.app"
PAINT, READING, STEP = "app: first paint", "app: first reading", "training: first step"
PROMPT = "Once upon a time"
COMMANDS = {
    "logits": [PROMPT],
    "loss": [PROMPT, "--target", " there"],
    "tokens": [PROMPT],
    "softmax": ["mat=3.2", "rug=1.3"],
    "draw": [PROMPT],
}
GOALS = {PAINT: (2.2, TEXTUAL), READING: (0.45, TORCH), STEP: (1.4, TORCH)}
GOALS |= {f"tui-llm {name}": (0.25, TORCH) for name in COMMANDS}


def python(*arguments: str) -> Times:
    """Runs a process of this Python."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def app(pattern: bytes) -> Times:
    """Starts the app and waits until `pattern` is painted."""
    terminal = Terminal()
    try:
        terminal.wait_for(pattern)
        return time.perf_counter() - terminal.began, terminal.cpu_seconds()
    finally:
        terminal.close()


def first_step() -> Times:
    """Starts a worker and waits until it ends; the run has one step, so that little but this step remains to be done."""
    from tui_llm.training.plan import launch
    from tui_llm.training.run.settings import from_fields, preset

    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("the cat sat on the mat and slept\n" * 200)
        name = f"start-{time.time_ns()}"
        run = launch.create(name, [str(text)], from_fields({"steps": 1}, preset("toy")), preset="toy", device="cpu")
        made = python("-m", "tui_llm.training.worker", str(run.path))
        assert run.status().state == "finished", run.status()
        return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=5, metavar="ROUNDS")
    parser.add_argument("--json", action="store_true", help="print the median ratios of wall time, by name, as JSON")
    options = parser.parse_args()
    rounds = options.rounds
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["TUI_LLM_HOME"] = tempfile.mkdtemp(prefix="tui-llm-start-")
    measures: dict[str, Callable[[], Times]] = {
        TORCH: lambda: python("-c", TORCH),
        TEXTUAL: lambda: python("-c", TEXTUAL),
        PAINT: lambda: app(rb"Prompt"),
        READING: lambda: app(rb"tokens of nano"),
        STEP: first_step,
    }
    for name, words in COMMANDS.items():
        measures[f"tui-llm {name}"] = lambda name=name, words=words: python("-m", "tui_llm", name, *words)
    for measure in measures.values():  # compiles and caches
        measure()
    taken = [{name: measure() for name, measure in measures.items()} for _ in range(rounds)]
    if options.json:
        ratios = {name: [one[name][0] / one[base][0] for one in taken] for name, (_, base) in GOALS.items()}
        print(json.dumps({name: statistics.median(found) for name, found in ratios.items()}))
        return
    for name in (TORCH, TEXTUAL):
        wall, cpu = (statistics.median(one[name][at] for one in taken) for at in (0, 1))
        print(f"{name:22} {wall:5.2f} s wall, {cpu:5.2f} s processor (medians of {rounds})")
    print(f"{'':22} {'wall: median, lowest':>22} {'processor':>16}   goal")
    for name, (goal, base) in GOALS.items():
        walls, cpus = ([one[name][at] / one[base][at] for one in taken] for at in (0, 1))
        wall, cpu = statistics.median(walls), statistics.median(cpus)
        verdict = "met" if wall <= goal else "NOT MET"
        print(
            f"{name:22} {wall:15.2f}, {min(walls):5.2f} {cpu:9.2f}, {min(cpus):5.2f}   ≤ {goal:g} × {base}: {verdict}",
            flush=True,
        )


if __name__ == "__main__":
    main()
