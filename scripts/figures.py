"""Measure the app's latency on this machine, and print each figure with its goal.

    python scripts/figures.py [start | keys | traffic | pastes | idle]

It runs the real app in a pseudo-terminal of 120×40 with the shipped model on the CPU. What can't be seen from outside
(blocking of the event loop) is measured in the process, with the same engine. Quote the figures with the machine.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import pty
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
from collections.abc import Callable, Sequence

WORDS = "once upon a time there was a little girl who lived in a small house by the sea and she had a dog named max "
COLUMNS, ROWS = 120, 40
ESCAPES = re.compile(rb"\x1b\[[0-9;?>]*[A-Za-z]")


def prompt_of(tokens: int) -> str:
    """Returns text of just over `tokens` tokens of the shipped model."""
    from tui_llm.llm.hub import lookup
    from tui_llm.llm.tokens import vocabulary_folder

    vocabulary = vocabulary_folder.load_folder(lookup.find("nano").folder)
    text = WORDS
    while len(vocabulary.encode(text)) < tokens:
        text += WORDS
    return vocabulary.decode(vocabulary.encode(text)[:tokens])


class Terminal:
    """The app in a pseudo-terminal, started like by a user, or another `command`."""

    def __init__(self, *arguments: str, command: Sequence[str] = ()) -> None:
        command = command or [sys.executable, "-m", "tui_llm", "--device", "cpu", *arguments]
        self.began = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execv(command[0], command)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.seen = b""

    def wait_for(self, pattern: bytes, seconds: float = 60.0) -> float:
        """Reads until `pattern` has been painted. Returns the seconds since the call."""
        began, self.seen = time.perf_counter(), b""
        while not re.search(pattern, ESCAPES.sub(b"", self.seen)):
            left = seconds - (time.perf_counter() - began)
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise TimeoutError(f"{pattern!r} did not appear")
            self.seen += os.read(self.fd, 65536)
        return time.perf_counter() - began

    def drain(self, quiet: float = 0.3) -> int:
        """Reads until there is no output for `quiet` seconds. Returns the number of bytes."""
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
    """Returns the seconds from the command to the first paint (the prompt's frame), and to the first reading."""
    terminal = Terminal()
    try:
        terminal.wait_for(rb"Prompt")
        paint = time.perf_counter() - terminal.began
        terminal.wait_for(rb"tokens of nano")
        return paint, time.perf_counter() - terminal.began
    finally:
        terminal.close()


SETTLED = 0.08  # seconds without output, after which a key's changes are painted completely
# Each letter replaces the previous one, so that the prompt stays at 200 tokens: at 256, nano's window would slide.
TYPED = [("\x7f" if at else "", letter) for at, letter in enumerate("qxzj" * 15)]
MOVES = {  # name → (keys pressed first, [(keys before each measurement, the measured key)])
    "temperature": ("\x1b", [("", key) for key in "[]" * 30]),
    "top-p": ("\x1b", [("", key) for key in "{}" * 30]),
    "target, Enter on a row": ("\x1b2", [(arrow, "\r") for arrow in ("\x1b[B", "\x1b[B", "\x1b[A", "\x1b[A") * 15]),
    "token cursor": ("\x1b", [("", ",")] * 60),
}


def keystrokes(first: str, keys: Sequence[tuple[str, str]]) -> list[float]:
    """Returns the sorted seconds from each key to the last byte painted for it, at a prompt of 200 tokens."""
    terminal = Terminal("--prompt", prompt_of(200))
    try:
        terminal.wait_for(rb"tokens of nano")
        terminal.drain(1.0)
        for key in first:
            terminal.write(key.encode())
            terminal.drain()
        times = []
        for before, key in keys:
            if before:
                terminal.write(before.encode())
                terminal.drain(SETTLED)
            began = last = time.perf_counter()
            terminal.write(key.encode())
            wait = 2.0
            while select.select([terminal.fd], [], [], wait)[0]:
                os.read(terminal.fd, 65536)
                last, wait = time.perf_counter(), SETTLED
            times.append(last - began)
        return sorted(times)
    finally:
        terminal.close()


def traffic(seconds: float = 12.0) -> float:
    """Returns the bytes per second painted while the app generates tokens continuously and shows a training run."""
    from tui_llm.training.plan import launch
    from tui_llm.training.run.settings import PRESETS, from_fields

    settings = from_fields({"steps": 10_000_000, "eval_every": 100}, PRESETS["toy"])
    run = launch.create(f"painted-{os.getpid()}", ["stories"], settings, preset="toy", device="cpu")
    launch.start(run)
    try:
        while (last := run.last_metric()) is None or last.step < 50:
            if run.status().state == "failed":
                raise SystemExit(f"the run failed: {run.status().message}")
            time.sleep(0.2)
        terminal = Terminal()
        try:
            terminal.wait_for(rb"tokens of nano")
            terminal.drain(1.0)
            terminal.write(b"\x1b")
            terminal.drain()
            terminal.write(b" ")
            count, seen, began = 0, b"", time.perf_counter()
            while (now := time.perf_counter()) < began + seconds:
                if select.select([terminal.fd], [], [], began + seconds - now)[0]:
                    seen = seen[-4096:] + (data := os.read(terminal.fd, 65536))
                    count += len(data)
                if re.search(rb"Space goes on|ended the text", ESCAPES.sub(b"", seen)):
                    seen = b""
                    terminal.write(b" ")
            return count / seconds
        finally:
            terminal.close()
    finally:
        launch.stop(run)
        launch.wait_until_gone(run)


def idle_share(seconds: float = 10.0) -> float:
    """Returns the share of one core that the app uses while nothing happens."""
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
    """Returns the longest time in seconds that the event loop was blocked between a paste of `text` and its reading."""
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

    only = sys.argv[1] if len(sys.argv) > 1 else ""
    if only in ("", "start"):
        row("tui-llm --help", median(help_time), 0.3, "s")
        starts = [start_times() for _ in range(5)]
        row("command to first paint", statistics.median(paint for paint, _ in starts), 0.5, "s")
        row("command to first reading", statistics.median(reading for _, reading in starts), 2.5, "s")
    if only in ("", "keys"):
        for what, first, pressed, goal in (
            ("letter", "", TYPED, 0.033),
            *((what, *keys, 0.016) for what, keys in MOVES.items()),
        ):
            keys = keystrokes(first, pressed)
            print(
                f"{f'{what}: key to repainted panes, median':58} {statistics.median(keys) * 1000:9.3g} ms", flush=True
            )
            row(f"{what}: 95th percentile", keys[int(len(keys) * 0.95)], goal, "ms", 1000)
    if only in ("", "traffic"):
        row("painted while drawing tokens and watching a run", traffic(), 60 * 1024, "KiB/s", 1 / 1024)
    if only in ("", "pastes"):
        pastes(row)
    if only in ("", "idle"):
        row("app idle, share of one core", idle_share(), 0.02, "%", 100)


def pastes(row: Callable[..., None]) -> None:
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


if __name__ == "__main__":
    main()
