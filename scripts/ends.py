"""Quit the app at random moments, in a real pseudo-terminal, and check how it ends.

python scripts/ends.py [--seed S] [--ends N] [--jobs J]

The moments: while torch is imported, during the forward pass of a long prompt, while tokens are streamed, in an
instrument, while a run is watched; each once its screen shows what it is for. Each app has a data folder of its own, so that it
remembers nothing of the others; all watch one run. After ctrl+q the process must exit with status 0, restore the terminal,
print no traceback there, and leave nothing in its logs: app.log, and errors.log of exceptions in threads and finalizers. The
exit status is 1 if one end differs. At the end it prints how long the ends took, from the key to the exit.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import fcntl
import os
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
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
HANG = 600.0  # seconds
QUIT = b"\x11"
RAW = b"\x1b[?1004h"  # written once the terminal is in raw mode: before, it takes ctrl+q itself
SCREEN, BACK = b"\x1b[?1049h", b"\x1b[?1049l"
READY = b"softmax"  # text of the lab's second pane, which shows its first paint
OPEN = b"parameters"  # shown once the model is open
LONG = b"\x1b[200~" + b"the dog ran to the river and swam " * 120 + b"\x1b[201~"
WATCHED = "watched"  # a run that is trained all the time
# The first while a checkpoint of it is opened, if that takes long enough to be drawn; the second after that.
OPENED = f"run:{WATCHED}\n{WATCHED} at step".encode()
LOGS = ("app.log", "errors.log")
TRACEBACKS = (b"Traceback", b"Exception ignored")


@dataclass(frozen=True)
class Moment:
    name: str
    mark: bytes  # text that the screen must show first
    keys: tuple[bytes | tuple[bytes, bytes], ...]  # each alone, or with text that the screen must show after it
    within: float  # ctrl+q is sent at a random time, at most this many seconds after the keys
    shows: bytes = b""  # text that the screen must show after the keys, before that time begins; or either of two lines


MOMENTS = (
    Moment("at the first paint", RAW, (), 0.3),
    Moment("as torch is imported", READY, (), 3.0),
    Moment("as torch is imported, typing", READY, (b"abc", b"\x1b"), 3.0),
    Moment("in a forward pass", OPEN, (LONG,), 0.5, b"swam"),
    Moment("in a stream", OPEN, (b"\x1b", b" "), 2.0, b"generated"),
    Moment("drawing a million times", OPEN, (b"\x1b", b"5", b"H", b"++++"), 1.0, b"Draw many"),
    Moment("learning", OPEN, (b"\x1b", b"3", b"L", b"nn "), 1.5, b"steps of SGD"),
    Moment("in the heads", OPEN, (b"\x1b", b"A"), 1.0, b"Attention"),
    Moment("growing a tree", OPEN, (b"\x1b", b"5", (b"T", b"next tokens, their raw p"), b"bbE"), 1.5, b"growing:"),
    # Esc and O within 0.1 s begin another key's sequence.
    Moment(
        "as another model is opened",
        OPEN,
        ((b"\x1b", b"i prompt"), (b"4", b"tokens/s"), b"O"),
        1.0,
        OPENED,
    ),
    Moment("watching a run", OPEN, (b"\x1b", b"4"), 2.0, WATCHED.encode()),
    Moment("in the palette", OPEN, ((b"\x10", b"Search for commands"), b"sav"), 0.5),
)
_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")


@dataclass
class End:
    moment: str
    after: float
    status: int | None
    seconds: float
    wrong: str


class Terminal:
    """The app in a pseudo-terminal of its own. `out` is what it has written."""

    def __init__(self, home: Path) -> None:
        environment = {**os.environ, "TUI_LLM_HOME": str(home), "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}  # fmt: skip
        environment.setdefault("OMP_NUM_THREADS", "1")
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.modes = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tui_llm"], stdin=self.slave, stdout=self.slave, stderr=self.slave, env=environment, cwd=home, start_new_session=True
        )  # fmt: skip
        os.set_blocking(self.master, False)
        self.out = b""

    def read(self, until: float, mark: bytes = b"", since: int = 0) -> bool:
        """Reads the output until that time, until `mark` or one of its lines is in what came after byte `since`, or until the
        process ends (then, and without the mark, returns False)."""
        while (left := until - time.monotonic()) > 0:
            if mark:
                text = _ESCAPE.sub(b"", self.out[since:]) + self.out[since:]
                if any(line in text for line in mark.split(b"\n")):
                    return True
            ended = self.process.poll() is not None  # what it wrote before is read once more
            ready, _, _ = select.select([self.master], [], [], min(0.05, left))
            if ready:
                with contextlib.suppress(OSError):
                    self.out += os.read(self.master, 65536)
            elif ended:
                return False
        return not mark

    def write(self, data: bytes) -> None:
        """Writes all of `data`, even while the app is too busy to read."""
        while data:
            try:
                data = data[os.write(self.master, data[:1024]) :]
            except BlockingIOError:
                if not self.read(time.monotonic() + 0.02):
                    return
            except OSError:
                return
        self.read(time.monotonic() + 0.05)

    def type(self, key: bytes, shows: bytes) -> bool:
        """Returns whether what the screen must show came."""
        began = len(self.out)
        self.write(key)
        return not shows or self.read(time.monotonic() + HANG, shows, began)

    def wrong_end(self) -> str:
        """What is wrong with how the process has ended; empty if nothing is."""
        after = self.out.rpartition(BACK)[2]
        if self.process.poll():
            return "its exit status"
        if BACK not in self.out.rpartition(SCREEN)[2]:
            return "the terminal was not given back"
        if termios.tcgetattr(self.slave) != self.modes:
            return "the terminal's modes"
        return "a traceback on the terminal" if any(word in after for word in TRACEBACKS) else ""

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.slave)
        os.close(self.master)


def end_once(home: Path, moment: Moment, after: float) -> End:
    terminal = Terminal(home)
    wrong = ""
    try:
        alive = terminal.read(time.monotonic() + HANG, moment.mark)
        began = len(terminal.out)
        for step in moment.keys:
            key, shows = step if isinstance(step, tuple) else (step, b"")
            alive = alive and terminal.type(key, shows)
        if alive and moment.shows:
            alive = terminal.read(time.monotonic() + HANG, moment.shows, began)
        if not (alive and terminal.read(time.monotonic() + after)):
            wrong = "it ended by itself, or never came that far"
        quit_at = time.monotonic()
        terminal.write(QUIT)
        if terminal.read(quit_at + HANG):
            wrong = wrong or f"it does not end in {HANG:.0f} s"
        seconds = time.monotonic() - quit_at
        wrong = wrong or terminal.wrong_end()
        if wrong:
            wrong = f"{wrong}: {terminal.out.rpartition(BACK)[2][-300:]!r}"
        elif logged := "".join(_text(home / "log" / name) for name in LOGS):
            wrong = f"its log: {logged[-3000:]}"
        return End(moment.name, after, terminal.process.poll(), seconds, wrong)
    finally:
        terminal.close()


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def new_home(folder: Path, number: int) -> Path:
    """A data folder in `folder` with nothing but the run that all of them watch."""
    home = folder / f"home-{number}"
    (home / "runs").mkdir(parents=True)
    (home / "runs" / WATCHED).symlink_to(folder / "runs" / WATCHED, target_is_directory=True)
    return home


def prepare(home: Path, checkpoint: bool) -> None:
    """Starts a run that is trained while the app is opened and closed. `checkpoint`: waits for its first one."""
    text = home / "corpus.txt"
    text.write_text("the cat sat on the mat and slept.\n" * 400)
    words = (
        f"train {text} --run {WATCHED} --preset toy --layers 1 --heads 2 --width 16 --block-size 32 --batch-size 4 --steps 100000000 "
        "--eval-every 1000 --checkpoint-every 5000 --device cpu --detach"
    )
    environment = {**os.environ, "TUI_LLM_HOME": str(home), "TUI_LLM_NICE": "19", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}  # fmt: skip
    subprocess.run([sys.executable, "-m", "tui_llm", *words.split()], env=environment, check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    while checkpoint and not any((home / "runs" / WATCHED).glob("checkpoint-*[0-9]/training.json")):
        time.sleep(0.1)


def stop(home: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((home / "runs" / WATCHED / "pid").read_text()), signal.SIGKILL)


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
        prepare(home, checkpoint=any(moment.shows == OPENED for moment, _ in moments))
        ends = []
        try:
            with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
                jobs = [
                    pool.submit(end_once, new_home(home, number), moment, share * moment.within)
                    for number, (moment, share) in enumerate(moments)
                ]
                for number, job in enumerate(concurrent.futures.as_completed(jobs), 1):
                    end = job.result()
                    ends.append(end)
                    print(f"{number:>4} {end.moment}, {end.after:.2f} s later: status {end.status}, {end.seconds:.2f} s {end.wrong}", flush=True)  # fmt: skip
        finally:
            stop(home)
    bad = [end for end in ends if end.wrong]
    seconds = sorted(end.seconds for end in ends)
    print(
        f"seed {options.seed}: {len(ends)} ends, {len(bad)} of them wrong; from ctrl+q to the end {statistics.median(seconds):.2f} s in "
        f"the middle, {seconds[-1]:.2f} s at most"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
