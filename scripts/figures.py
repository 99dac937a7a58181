"""Measures how quick the app is on this machine, and prints each figure beside its goal.

    python scripts/figures.py

It runs the real app in a pseudo-terminal of 120×40 with the shipped model on the CPU; what can't be seen from outside
(a frozen event loop) is measured inside, with the same engine. The figures are this machine's: quote them with it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import pty
import random
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable

WORDS = "once upon a time there was a little girl who lived in a small house by the sea and she had a dog named max "
COLUMNS, ROWS = 120, 40
ESCAPES = re.compile(rb"\x1b\[[0-9;?>]*[A-Za-z]")


def prompt_of(tokens: int) -> str:
    """Text of just over `tokens` tokens of the shipped model."""
    from tui_llm.llm import hub, tokenizer

    vocabulary = tokenizer.load_folder(hub.find("nano").folder)
    text = WORDS
    while len(vocabulary.encode(text)) < tokens:
        text += WORDS
    return vocabulary.decode(vocabulary.encode(text)[:tokens])


class Terminal:
    """The app in a pseudo-terminal, as a person would start it."""

    def __init__(self, *arguments: str) -> None:
        self.began = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execv(sys.executable, [sys.executable, "-m", "tui_llm", "--device", "cpu", *arguments])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.seen = b""

    def wait_for(self, pattern: bytes, seconds: float = 60.0) -> float:
        """Reads until `pattern` has been painted; returns seconds since now."""
        began, self.seen = time.perf_counter(), b""
        while not re.search(pattern, ESCAPES.sub(b"", self.seen)):
            left = seconds - (time.perf_counter() - began)
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise TimeoutError(f"{pattern!r} did not appear")
            self.seen += os.read(self.fd, 65536)
        return time.perf_counter() - began

    def drain(self, quiet: float = 0.3) -> int:
        """Reads until nothing has come for a while; returns how many bytes came."""
        count = 0
        while select.select([self.fd], [], [], quiet)[0]:
            count += len(os.read(self.fd, 65536))
        return count

    def write(self, data: bytes) -> None:
        os.write(self.fd, data)

    def cpu_seconds(self) -> float:
        with open(f"/proc/{self.pid}/stat") as file:  # noqa: PTH123
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def median(measure: Callable[[], float], times: int = 5) -> float:
    return statistics.median(measure() for _ in range(times))


def help_time() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tui_llm", "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def start_times() -> tuple[float, float]:
    """Seconds from the command to the first paint (the prompt's frame), and to the first reading."""
    terminal = Terminal()
    try:
        terminal.wait_for(rb"Prompt")
        paint = time.perf_counter() - terminal.began
        terminal.wait_for(rb"tokens of nano")
        return paint, time.perf_counter() - terminal.began
    finally:
        terminal.close()


def keystrokes(count: int = 60) -> list[float]:
    """Seconds from each key to the repainted panes, at a prompt of 200 tokens."""
    terminal = Terminal("--prompt", prompt_of(200))
    dice = random.Random(1)
    try:
        terminal.wait_for(rb"tokens of nano")
        terminal.drain()
        times = []
        for _ in range(count):
            terminal.write(dice.choice("qxzj").encode())  # none of these joins the one before it
            times.append(terminal.wait_for(rb"\d+ tokens of nano"))
            terminal.drain(0.05)
        return times
    finally:
        terminal.close()


def idle_share(seconds: float = 10.0) -> float:
    """Share of one core that the app uses while nothing happens."""
    terminal = Terminal()
    try:
        terminal.wait_for(rb"tokens of nano")
        terminal.drain(2.0)
        before = terminal.cpu_seconds()
        time.sleep(seconds)
        return (terminal.cpu_seconds() - before) / seconds
    finally:
        terminal.close()


async def longest_gap(text: str) -> float:
    """The longest time for which the event loop did not turn, from a paste of `text` to its reading, in seconds."""
    from textual import events

    from tui_llm.engine import PipelineEngine
    from tui_llm.tui.app import LabApp

    app = LabApp(lambda: PipelineEngine("cpu"), prompt="Once")
    async with app.run_test(size=(COLUMNS, ROWS)) as pilot:
        lab = app.lab_screen
        while lab.reading is None:
            await pilot.pause(0.05)
        gap, last = 0.0, time.perf_counter()
        lab.prompt.focus()
        await pilot.pause()
        last = time.perf_counter()
        lab.prompt.post_message(events.Paste(text))
        end = time.perf_counter() + 60
        while time.perf_counter() < end:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gap, last = max(gap, now - last), now
            if lab.reading.request.prompt.endswith(text):
                break
        else:
            raise TimeoutError("the paste was never read")
        for _ in range(20):
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gap, last = max(gap, now - last), now
        return gap


def main() -> None:
    if not os.environ.get("TUI_LLM_HOME"):
        os.environ["TUI_LLM_HOME"] = tempfile.mkdtemp(prefix="tui-llm-figures-")
    import torch

    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
    )

    def row(what: str, value: float, goal: float, unit: str, scale: float = 1.0) -> None:
        mark = "met" if value < goal else "NOT MET"
        print(f"{what:58} {value * scale:9.3g} {unit:4} goal < {goal * scale:g} {unit}  {mark}", flush=True)

    row("tui-llm --help", median(help_time), 0.3, "s")
    starts = [start_times() for _ in range(5)]
    row("command to first paint", statistics.median(paint for paint, _ in starts), 0.6, "s")
    print(
        f"{'command to first reading':58} {statistics.median(reading for _, reading in starts):9.3g} s",
        flush=True,
    )
    keys = sorted(keystrokes())
    print(f"{'key to repainted panes, 200 tokens, median':58} {keys[len(keys) // 2] * 1000:9.3g} ms", flush=True)
    row("key to repainted panes, 200 tokens, 95th percentile", keys[int(len(keys) * 0.95)], 0.05, "ms", 1000)
    lines = (WORDS + "\n") * (1_000_000 // (len(WORDS) + 1))
    row("longest freeze at a paste of 1 MB", asyncio.run(longest_gap(lines)), 0.2, "ms", 1000)
    row(
        "longest freeze at a paste of 1 MB in one line",
        asyncio.run(longest_gap(WORDS * (1_000_000 // len(WORDS)))),
        0.2,
        "ms",
        1000,
    )
    row(
        "longest freeze at a paste of 1 MB without a space",
        asyncio.run(longest_gap("x" * 1_000_000)),
        0.2,
        "ms",
        1000,
    )
    row("app idle, share of one core", idle_share(), 0.02, "%", 100)


if __name__ == "__main__":
    main()
