"""Measure the processor time of a key up to its last byte, as a ratio to redrawing one Textual `Static` of the same size.

    python scripts/figures_screen.py [--keys 40] [--json] [temperature top-p target letter …]

The real app and an app with one `Static`, which a key gives other text, run in two pseudo-terminals of 120×40. A key goes
to one, then to the other. What counts is the processor time of all threads from before the key until the last byte that
is painted for it, so the ratios hold on a loaded machine, too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import select
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass

import figures
from figures import Terminal

STATIC = """
import itertools
import random
from textual.app import App
from textual.widgets import Static

class Redraw(App):
    CSS = "Static {{ width: 100%; height: 100%; }}"

    texts = itertools.cycle(
        ["".join(random.choices("abcdefghijklmnopqrstuvwxyz ", k={columns} * {rows})) for _ in range(8)]
    )

    def compose(self):
        yield Static(next(self.texts))

    def on_key(self):
        self.query_one(Static).update(next(self.texts))

Redraw().run()
"""
LETTER = "letter"
GOALS = {"temperature": 3.0, "top-p": 3.0, "target, Enter on a row": 3.0, LETTER: 6.0}
SPREAD = 1.5  # times the median: the goal of the 95th percentile
SETTLED = 0.2  # seconds without output, after which a key's changes are painted; ghost text needs a pause of 0.25


@dataclass(frozen=True)
class KeyTimes:
    """Processor time in seconds of each key of one kind, and of redrawing a `Static`, in turn."""

    name: str
    app: list[float]
    static: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.app) / statistics.median(self.static)

    @property
    def spread(self) -> float:
        """The 95th percentile as a multiple of the median."""
        return sorted(self.app)[math.ceil(len(self.app) * 0.95) - 1] / statistics.median(self.app)


def clock(pid: int) -> float:
    """Returns the processor time in seconds of all threads of a process (clock_getcpuclockid of POSIX, as Linux encodes it)."""
    return time.clock_gettime((~pid << 3) | 2)


def press(terminal: Terminal, key: str) -> float:
    """Returns the processor time in seconds from a key to the last byte painted for it."""
    began = last = clock(terminal.pid)
    terminal.write(key.encode())
    wait = 5.0
    while select.select([terminal.fd], [], [], wait)[0]:
        os.read(terminal.fd, 1 << 20)
        last, wait = clock(terminal.pid), SETTLED
    return last - began


def until_idle(terminal: Terminal) -> None:
    """Waits until the process has stopped working: torch is imported, all garbage collected."""
    last, since = clock(terminal.pid), time.perf_counter()
    while time.perf_counter() - since < 60:
        terminal.drain(1.5)
        used, last = clock(terminal.pid) - last, clock(terminal.pid)
        if used < 0.03:
            return


def measure(name: str, app: Terminal, static: Terminal, keys: int) -> KeyTimes:
    """Presses `keys` keys of a kind, each in the app and then in the app of one `Static`."""
    first, pressed = ("", figures.TYPED) if name == LETTER else figures.MOVES[name]
    for key in first:
        app.write(key.encode())
        app.drain(0.5)
    taken, redrawn = [], []
    for before, key in [*pressed[:4], *(pressed * 9)[:keys]]:
        if before:
            app.write(before.encode())
            app.drain(SETTLED)
        taken.append(press(app, key))
        redrawn.append(press(static, "a"))
    return KeyTimes(name, taken[4:], redrawn[4:])


def all_times(names: list[str], keys: int) -> list[KeyTimes]:
    script = STATIC.format(columns=figures.COLUMNS, rows=figures.ROWS)
    static = Terminal(command=[sys.executable, "-c", script])
    times = []
    try:
        static.drain(1.5)
        for name in names:
            app = Terminal("--prompt", figures.prompt_of(200))
            try:
                app.wait_for(rb"tokens of nano")
                until_idle(app)
                times.append(measure(name, app, static, keys))
            finally:
                app.close()
    finally:
        static.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="KEY", help=f"of {', '.join(GOALS)}; the default is all")
    parser.add_argument("--keys", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="print the times in seconds as JSON")
    options = parser.parse_args()
    os.environ.setdefault("TUI_LLM_HOME", tempfile.mkdtemp(prefix="tui-llm-figures-"))
    names = [name for name in GOALS if not options.names or any(name.startswith(want) for want in options.names)]
    times = all_times(names, options.keys)
    if options.json:
        print(json.dumps([{"name": one.name, "app": one.app, "static": one.static} for one in times]))
        return
    for one in times:
        goal = GOALS[one.name]
        print(
            f"{one.name:24} {statistics.median(one.app) * 1e3:7.2f} ms, Static {statistics.median(one.static) * 1e3:6.2f} ms"
            f"   ratio {one.ratio:5.2f}  goal ≤ {goal:g}  {'met' if one.ratio <= goal else 'NOT MET'}"
            f"   95th percentile {one.spread:4.2f} × median  goal ≤ {SPREAD:g}  {'met' if one.spread <= SPREAD else 'NOT MET'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
