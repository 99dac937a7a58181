"""What comes back at the next start, with `tui-llm` as a process in a terminal: killed, ended by a signal, two at once."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import textwrap
from pathlib import Path

import pytest

from tests import HANG

TESTS = Path(__file__).parent
# The command line as it is, with the fake engine in place of torch; however slow the disk is, the last write is waited for.
PROGRAM = textwrap.dedent("""
    import sys, types
    sys.path.insert(0, {tests!r})
    from fake_engine import FakeEngine
    sys.modules["tui_llm.engine"] = types.SimpleNamespace(PipelineEngine=lambda *_, **__: FakeEngine())
    from tui_llm.tui.state import state_file
    state_file.LAST = {hang}
    {before}
    from tui_llm.cli import main
    from tui_llm.common.process_exit import exit_with
    raise SystemExit(exit_with(main(sys.argv[1:])))
""")

# Reading says that the terminal is closed, and SIGHUP comes once the app has ended: before the last write.
CLOSED_LATE = """
import errno, os, signal
from tui_llm.tui.state.state_file import StateWriter
read, finish = os.read, StateWriter.finish

def read_or_fail(number, size):
    if b"\x05" in (found := read(number, size)) and number == 0:
        raise OSError(errno.EIO, "Input/output error")
    return found

def hang_up(writer):
    os.kill(os.getpid(), signal.SIGHUP)
    finish(writer)

os.read, StateWriter.finish = read_or_fail, hang_up
"""

# At SIGUSR1 the process writes the names of its threads.
TELLS_THREADS = """
import os, signal, threading
from pathlib import Path

def tell(*_):
    home = Path(os.environ["TUI_LLM_HOME"])
    (home / "threads.new").write_text("\\n".join(thread.name for thread in threading.enumerate()))
    (home / "threads.new").replace(home / "threads.txt")

signal.signal(signal.SIGUSR1, tell)
"""

# SIGCONT comes when the app has ended, before the process does.
CONTINUED_LATE = """
import os, signal
from tui_llm.tui.state.state_file import StateWriter
finish = StateWriter.finish

def continued(writer):
    os.kill(os.getpid(), signal.SIGCONT)
    finish(writer)

StateWriter.finish = continued
"""


# After SIGUSR1, SIGCONT comes once the app's queue has found nothing and is about to wait.
CONTINUED_BEFORE_A_WAIT = """
import os, signal
from pathlib import Path
from tui_llm.tui.app import LabApp
init, apps = LabApp.__init__, []

def noted(app, *given, **named):
    apps.append(app)
    init(app, *given, **named)

def armed(*_):
    event = apps[0]._message_queue.ready_event
    get_loop = event._get_loop

    def continued():
        del event._get_loop
        signal.raise_signal(signal.SIGCONT)
        return get_loop()

    event._get_loop = continued
    Path(os.environ["TUI_LLM_HOME"], "armed").touch()

LabApp.__init__ = noted
signal.signal(signal.SIGUSR1, armed)
"""


class Terminal:
    """`tui-llm` with these arguments in a pseudo-terminal of its own, which is its controlling terminal."""

    def __init__(self, home: Path, *arguments: str, before: str = "", shell: str = "") -> None:
        self.home = home
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        home.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "TUI_LLM_HOME": str(home),
            "TERM": "xterm-256color",
            "PYTHONPATH": str(TESTS.parents[1]),
        }
        program = PROGRAM.format(tests=str(TESTS), hang=HANG, before=before)
        self.process = subprocess.Popen(
            [sys.executable, *(("-c", shell) if shell else ()), "-c", program, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.out = b""

    def until(self, mark: bytes) -> None:
        """Reads until `mark` appears. The tests' timeout ends a futile wait."""
        while mark not in self.out:
            assert self.process.poll() is None, self.out[-1000:]
            self.read()

    def read(self) -> bool:
        """Returns whether there was something to read."""
        if not select.select([self.master], [], [], 0.02)[0]:
            return False
        try:
            self.out += (read := os.read(self.master, 65536))
        except OSError:
            return False
        return bool(read)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def paste(self, text: str) -> None:
        """One event, which is painted at once."""
        self.type(f"\x1b[200~{text}\x1b[201~")

    def until_remembered(self, **wanted: str) -> None:
        while any(self.remembered().get(key) != value for key, value in wanted.items()):
            assert self.process.poll() is None, self.out[-1000:]
            self.read()

    def remembered(self) -> dict[str, object]:
        try:
            found: dict[str, object] = json.loads((self.home / "state.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def wait(self) -> int:
        ended = False
        while not ended:
            ended = self.process.poll() is not None
            while self.read():  # also what was written between the last read and the end
                pass
        return self.process.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def opened(home: Path, *arguments: str, before: str = "") -> Terminal:
    terminal = Terminal(home, *arguments, before=before)
    terminal.until(b"parameters")
    return terminal


def quit_app(terminal: Terminal) -> None:
    terminal.type("\x11")
    assert terminal.wait() == 0
    os.close(terminal.master)


@pytest.mark.parametrize("end", ["kill -9", "SIGTERM", "SIGHUP", "closed", "quit"])
def test_what_was_typed_is_there_again(home: Path, end: str) -> None:
    first = opened(home, "--prompt", "The cat")
    first.paste(" zebra")
    first.until(b"zebra")  # it has handled the text
    if end == "kill -9":
        first.until_remembered(prompt="The cat zebra")
        first.kill()
    elif end == "closed":  # the window: the kernel sends SIGHUP
        os.close(first.master)
        assert first.process.wait() == 128 + signal.SIGHUP
    elif end == "quit":
        quit_app(first)
    else:
        number = getattr(signal, end)
        first.process.send_signal(number)
        assert first.wait() == 128 + number
        assert b"\x1b[?1049l" in first.out, "the terminal is given back"
    assert first.remembered()["prompt"] == "The cat zebra"
    again = opened(home)
    again.until(b"The cat zebra")
    again.kill()


def test_a_terminal_that_reading_finds_closed_ends_the_app_as_its_signal_does(home: Path) -> None:
    terminal = opened(home, "--prompt", "The cat", before=CLOSED_LATE)
    terminal.paste(" zebra")
    terminal.until(b"zebra")
    terminal.type("\x05")
    assert terminal.wait() == 128 + signal.SIGHUP, terminal.out[-1000:]
    os.close(terminal.master)
    assert terminal.remembered()["prompt"] == "The cat zebra"
    assert b"Traceback" not in terminal.out and b"internal error" not in terminal.out


def test_an_app_that_starts_fresh_neither_shows_nor_changes_it(home: Path) -> None:
    first = opened(home, "--prompt", "The cat")
    first.paste(" zebra")
    first.until_remembered(prompt="The cat zebra")
    quit_app(first)
    fresh = opened(home, "--fresh")
    fresh.until(b"Once upon a time")
    fresh.paste(" gone")
    fresh.until(b"gone")
    quit_app(fresh)
    assert fresh.remembered()["prompt"] == "The cat zebra"


def test_two_apps_at_once_keep_each_others_half(home: Path) -> None:
    one, other = opened(home), opened(home)
    one.paste(" typed")
    one.until_remembered(prompt="Once upon a time, there was a little typed")
    other.type("\x1b")
    other.until(b"i edits")
    other.type("d")  # the light theme
    other.until_remembered(theme="textual-light")
    quit_app(one)
    quit_app(other)
    assert one.remembered() == {
        "version": 1,
        "prompt": "Once upon a time, there was a little typed",
        "theme": "textual-light",
    }


def test_a_home_that_cannot_be_written_is_told_and_loses_nothing(home: Path) -> None:
    first = opened(home)
    first.paste(" kept")
    first.until_remembered(prompt="Once upon a time, there was a little kept")
    quit_app(first)
    (home / "state.json.lock").unlink()
    (home / "state.json.lock").mkdir()  # stands for a folder without write permission, which root would have
    second = opened(home)
    second.paste(" lost")
    second.until(b"can't be saved")
    quit_app(second)
    assert second.remembered()["prompt"] == "Once upon a time, there was a little kept"
    assert b"tui-llm: the state can't be saved: can't write" in second.out and b"Traceback" not in second.out


@pytest.mark.parametrize("stopped", [signal.SIGSTOP, signal.SIGTSTP, None])
def test_a_process_that_goes_on_has_its_screen_and_one_thread_for_keys(
    home: Path, stopped: signal.Signals | None
) -> None:
    """Stopped by `kill -STOP` or a shell; or never stopped: a terminal that closes sends SIGCONT too."""
    terminal = opened(home, "--prompt", "The cat", before=TELLS_THREADS)
    for _ in range(2):
        if stopped is not None:
            terminal.process.send_signal(stopped)
            os.waitpid(terminal.process.pid, os.WUNTRACED)
            while terminal.read():
                pass
        terminal.out = b""
        terminal.process.send_signal(signal.SIGCONT)
        terminal.until(b"\x1b[?1049h")
        terminal.until(b"parameters")
    terminal.paste(" zebra")
    terminal.until(b"zebra")
    terminal.process.send_signal(signal.SIGUSR1)
    while not (home / "threads.txt").exists():
        terminal.read()
    names = (home / "threads.txt").read_text().split("\n")
    assert [names.count(name) for name in ("textual-input", "textual-output")] == [1, 1], names
    quit_app(terminal)
    assert terminal.remembered()["prompt"] == "The cat zebra"


# A shell: it starts its arguments as a job in the background, waits until that stops, and brings it to the foreground.
SHELL = """
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
assert os.WIFSTOPPED(os.waitpid(job, os.WUNTRACED)[1]), "it did not stop"
os.tcsetpgrp(0, job)
os.kill(job, signal.SIGCONT)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]))
"""


def test_a_job_that_was_started_in_the_background_is_brought_to_the_foreground(home: Path) -> None:
    terminal = Terminal(home, "--prompt", "The cat", shell=SHELL)
    terminal.until(b"parameters")
    quit_app(terminal)


def test_a_signal_just_before_the_app_waits_for_a_message_leaves_it_alive(home: Path) -> None:
    terminal = opened(home, "--prompt", "The cat", before=CONTINUED_BEFORE_A_WAIT)
    terminal.process.send_signal(signal.SIGUSR1)
    while not (home / "armed").exists():
        terminal.read()
    terminal.out = b""
    terminal.paste(" zebra")
    terminal.until(b"\x1b[?1049h")
    terminal.until(b"parameters")
    quit_app(terminal)
    assert terminal.remembered()["prompt"] == "The cat zebra"


def test_a_process_that_goes_on_once_its_app_has_ended_ends(home: Path) -> None:
    terminal = opened(home, "--prompt", "The cat", before=CONTINUED_LATE)
    quit_app(terminal)
    assert b"Traceback" not in terminal.out
