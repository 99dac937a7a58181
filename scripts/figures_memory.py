"""Measure the memory of the app on this machine, and print each figure with its goal.

    python scripts/figures_memory.py [--json] [--only nano]

The app runs in a pseudo-terminal, with nano and with random weights of GPT-2 124M's shape, in fp32 and int8. Its memory
is the resident set (VmRSS of /proc/PID/status, Linux), read once it idles after its first reading; its peak is VmHWM.
What a model adds is what the app has more than with nano. The figures do not depend on other load.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import figures_screen
from figures import Terminal

IMPORTS = "import torch, textual; print(open('/proc/self/status').read())"
MIB = 2**20


@dataclass(frozen=True)
class MemoryFigure:
    """A quotient of two amounts of memory in bytes, and the highest that is a success."""

    name: str
    part: float
    whole: float
    goal: float

    @property
    def ratio(self) -> float:
        return self.part / self.whole

    @property
    def met(self) -> bool:
        return self.ratio <= self.goal

    def line(self) -> str:
        amounts = f"{self.part / MIB:8.1f} ÷ {self.whole / MIB:8.1f} MiB"
        return f"{self.name:58} {amounts} = {self.ratio:5.2f}  goal ≤ {self.goal:g}  {'met' if self.met else 'NOT MET'}"


def amount(status: str, name: str) -> int:
    """Returns bytes from the text of /proc/PID/status."""
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{name}:"))


def app(*arguments: str) -> tuple[int, int]:
    """Returns the app's resident memory once it idles, and its peak."""
    terminal = Terminal("--prompt", "The cat sat on the", *arguments)
    try:
        terminal.wait_for(rb"\d tokens of ", 120)
        figures_screen.until_idle(terminal)
        status = Path(f"/proc/{terminal.pid}/status").read_text()
        return amount(status, "VmRSS"), amount(status, "VmHWM")
    finally:
        terminal.close()


def imports() -> int:
    made = subprocess.run([sys.executable, "-c", IMPORTS], stdout=subprocess.PIPE, text=True, check=True)
    return amount(made.stdout, "VmRSS")


def measure(only_nano: bool) -> list[MemoryFigure]:
    idle, peak = app()
    made = [MemoryFigure("app with nano, idle ÷ import torch, textual", idle, imports(), 1.3)]
    if only_nano:
        return made
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-c", "import pathlib, sys, figures_table; figures_table.random_model(pathlib.Path(sys.argv[1]), 12, 12, 768, 1024)", folder],
            cwd=Path(__file__).parent,
            check=True,
        )  # fmt: skip
        added = {}
        for weights in ("fp32", "int8"):
            stays, peak = app("--model", folder, "--weights", weights)
            added[weights] = stays - idle
            made.append(
                MemoryFigure(
                    f"124M in {weights}: peak while opening ÷ what stays, added", peak - idle, stays - idle, 1.2
                )
            )
    return [*made, MemoryFigure("124M: what int8 adds ÷ what fp32 adds", added["int8"], added["fp32"], 0.35)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures, in bytes, as JSON")
    parser.add_argument("--only", choices=("nano",))
    options = parser.parse_args()
    os.environ.setdefault("TUI_LLM_HOME", tempfile.mkdtemp(prefix="tui-llm-figures-"))
    made = measure(options.only is not None)
    print(json.dumps([asdict(one) for one in made]) if options.json else "\n".join(one.line() for one in made))


if __name__ == "__main__":
    main()
