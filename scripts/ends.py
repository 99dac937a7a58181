"""Quit the app at random moments, in a real pseudo-terminal, and check how it ends.

python scripts/ends.py [--seed S] [--ends N] [--jobs J]

The moments: while torch is imported, during the forward pass of a long prompt, while tokens are streamed, in an
instrument, while a run is watched. After ctrl+q the process must exit with status 0, restore the terminal and leave
nothing in the log. The exit status is 1 if one end differs. At the end it prints how long the ends took, from the key
to the exit.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import fcntl
import os
import pty
import random
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
HANG = 600.0  # seconds
QUIT = b"\x11"
RAW = b"\x1b[?1004h"  # written once the terminal is in raw mode: before, it takes ctrl+q itself
SCREEN, BACK = b"\x1b[?1049h", b"\x1b[?1049l"
READY = b"softmax"  # text of the lab's second pane, which shows its first paint
OPEN = b"parameters"  # shown once the model is open
LONG = b"\x1b[200~" + b"the cat sat on the mat and slept " * 120 + b"\x1b[201~"


@dataclass(frozen=True)
class Moment:
    name: str
    mark: bytes  # text that the screen must show first
    keys: tuple[bytes, ...]
    within: float  # ctrl+q is sent at a random time, at most this many seconds after the keys


MOMENTS = (
    Moment("at the first paint", RAW, (), 0.3),
    Moment("as torch is imported", READY, (), 3.0),
    Moment("as torch is imported, typing", READY, (b"abc", b"\x1b"), 3.0),
    Moment("in a forward pass", OPEN, (LONG,), 0.5),
    Moment("in a stream", OPEN, (b"\x1b", b" "), 2.0),
    Moment("drawing a million times", OPEN, (b"\x1b", b"5", b"H", b"++++"), 1.0),
    Moment("learning", OPEN, (b"\x1b", b"3", b"L", b"nn "), 1.5),
    Moment("in the heads", OPEN, (b"\x1b", b"A"), 1.0),
    Moment("growing a tree", OPEN, (b"\x1b", b"5", b"T", b"bbE"), 1.5),
    Moment("as another model is opened", OPEN, (b"\x1b", b"O4O"), 1.0),
    Moment("watching a run", OPEN, (b"\x1b", b"4"), 2.0),
    Moment("in the palette", OPEN, (b"\x10", b"sav"), 0.5),
)


@dataclass
class End:
    moment: str
    after: float
    status: int | None
    seconds: float
    wrong: str


def end_once(home: Path, moment: Moment, after: float) -> End:
    environment = {**os.environ, "TUI_LLM_HOME": str(home), "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}  # fmt: skip
    environment.setdefault("OMP_NUM_THREADS", "1")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        [sys.executable, "-m", "tui_llm"], stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=home, start_new_session=True
    )  # fmt: skip
    os.set_blocking(master, False)
    out = b""

    def run(until: float | None, mark: bytes = b"") -> bool:
        """Reads the output until that time, until `mark` appears, or until the process ends (then returns False)."""
        nonlocal out
        while until is None or (left := until - time.monotonic()) > 0:
            if mark and mark in out:
                return True
            ended = process.poll() is not None  # what it wrote before is read once more
            ready, _, _ = select.select([master], [], [], min(0.05, left) if until is not None else 0.05)
            if ready:
                with contextlib.suppress(OSError):
                    out += os.read(master, 65536)
            elif ended:
                return False
        return not mark

    wrong = ""
    try:
        alive = run(time.monotonic() + HANG, moment.mark)
        for key in moment.keys if alive else ():
            _write(master, key, run)
        alive = alive and run(time.monotonic() + after)
        began = time.monotonic()
        if not alive:
            wrong = "it ended by itself, or never came that far"
        _write(master, QUIT, run)
        if run(began + HANG):
            wrong = wrong or f"it does not end in {HANG:.0f} s"
        seconds = time.monotonic() - began
        if process.poll():
            wrong = wrong or "its exit status"
        elif BACK not in out.rpartition(SCREEN)[2]:
            wrong = wrong or "the terminal was not given back"
        elif termios.tcgetattr(slave) != before:
            wrong = wrong or "the terminal's modes"
        return End(
            moment.name, after, process.poll(), seconds, wrong and f"{wrong}: {out.rpartition(BACK)[2][-300:]!r}"
        )
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(slave)
        os.close(master)


def _write(master: int, data: bytes, run: object) -> None:
    """Writes all of `data`, even while the app is too busy to read."""
    assert callable(run)
    while data:
        try:
            data = data[os.write(master, data[:1024]) :]
        except BlockingIOError:
            if not run(time.monotonic() + 0.02):
                return
        except OSError:
            return
    run(time.monotonic() + 0.05)


def prepare(home: Path) -> None:
    """Starts a run that is trained while the app is opened and closed."""
    text = home / "corpus.txt"
    text.write_text("the cat sat on the mat and slept.\n" * 400)
    words = (
        f"train {text} --run watched --preset toy --layers 1 --heads 2 --width 16 --block-size 32 --batch-size 4 --steps 100000000 "
        "--eval-every 1000 --checkpoint-every 5000 --device cpu --detach"
    )
    environment = {**os.environ, "TUI_LLM_HOME": str(home), "TUI_LLM_NICE": "19", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}  # fmt: skip
    subprocess.run([sys.executable, "-m", "tui_llm", *words.split()], env=environment, check=True, stdout=subprocess.DEVNULL)  # fmt: skip


def stop(home: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((home / "runs" / "watched" / "pid").read_text()), signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ends", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2, help="apps at the same time")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    moments = [(MOMENTS[at % len(MOMENTS)], draw.random()) for at in range(options.ends)]
    with tempfile.TemporaryDirectory(prefix="tui-llm-ends-") as folder:
        home = Path(folder)
        prepare(home)
        ends = []
        try:
            with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
                jobs = [pool.submit(end_once, home, moment, share * moment.within) for moment, share in moments]
                for number, job in enumerate(concurrent.futures.as_completed(jobs), 1):
                    end = job.result()
                    ends.append(end)
                    print(f"{number:>4} {end.moment}, {end.after:.2f} s later: status {end.status}, {end.seconds:.2f} s {end.wrong}", flush=True)  # fmt: skip
            log = home / "log" / "app.log"
            logged = log.read_text(errors="replace") if log.exists() else ""
        finally:
            stop(home)
    bad = [end for end in ends if end.wrong]
    seconds = sorted(end.seconds for end in ends)
    print(
        f"seed {options.seed}: {len(ends)} ends, {len(bad)} of them wrong; from ctrl+q to the end {statistics.median(seconds):.2f} s in "
        f"the middle, {seconds[-1]:.2f} s at most; {len(logged)} characters in the log"
    )
    if logged:
        print(logged[-3000:])
    return 1 if bad or logged else 0


if __name__ == "__main__":
    raise SystemExit(main())
