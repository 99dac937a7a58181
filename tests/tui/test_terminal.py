"""The app and its terminal: other writers are redirected to a log, and without a terminal there is a message."""

from __future__ import annotations

import errno
import os
import pty
import select
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from textual._xterm_parser import XTermParser
from textual.drivers._writer_thread import WriterThread
from textual.events import Key

from tui_llm.tui.input import ESC, FLOOD, PASTE_BEGINS, PASTE_ENDS, STAND_IN, InputDecoder
from tui_llm.tui.terminal import TerminalOutput

TESTS = Path(__file__).parent
READY, CTRL_Q = b"Prompt", b"\x11"
RUNNER = """
    import os, sys
    sys.path.insert(0, {tests!r})
    from fake_engine import FakeEngine
    from tui_llm.tui.app import LabApp
    from tui_llm.tui.terminal import run_app

    class Noisy(LabApp):
        def on_mount(self):
            os.write(1, b"NOISE-ON-1")
            os.write(2, b"NOISE-ON-2")

        def on_ready(self):
            {ready}

    status = run_app(Noisy(FakeEngine))
    os.write(1, b"AFTER-THE-APP")
    raise SystemExit(status)
"""


# Bytes that are not UTF-8, as from a binary paste or a Latin-1 terminal; the app exits once they have arrived.
TYPED = """
    import os, sys
    sys.path.insert(0, {tests!r})
    from fake_engine import FakeEngine
    from tui_llm.tui.app import LabApp
    from tui_llm.tui.terminal import run_app

    class Typing(LabApp):
        def on_ready(self):
            self.set_interval(0.05, self.look)

        def look(self):
            text = self.lab_screen.prompt.prompt_text
            if text.endswith("end"):
                os.write(1, ascii(text).encode())
                self.exit()

    raise SystemExit(run_app(Typing(FakeEngine, prompt="x")))
"""


def run_in_terminal(
    home: Path, ready: str = "pass", runner: str = RUNNER, typed: bytes = b"", stdout: int | None = None
) -> tuple[int, bytes]:
    """Runs the runner in a pseudo-terminal; returns its exit status and all output.

    `stdout`: a file descriptor in place of the terminal. `typed` is sent once the app has drawn its first screen and handles keys (`READY`). The terminal reports a size of 0
    × 0, which is first taken as 80 × 25, then as 80 × 24: two sizes at once, which would alternate forever without
    tui/kit/base_screen.py.
    """
    program = textwrap.dedent(runner).format(tests=str(TESTS), ready=ready)
    master, slave = pty.openpty()
    env = {
        **os.environ,
        "TUI_LLM_HOME": str(home),
        "TERM": "xterm-256color",
        "PYTHONPATH": str(TESTS.parents[1]),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=slave,
        stdout=slave if stdout is None else stdout,
        stderr=slave,
        env=env,
        start_new_session=True,
    )
    os.close(slave)
    out = b""
    while True:
        ended = process.poll() is not None  # what it wrote before is read once more
        ready_to_read, _, _ = select.select([master], [], [], 0.1)
        if ready_to_read:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                break
            if not chunk:
                break
            out += chunk
            if typed and READY in out:
                os.write(master, typed)
                typed = b""
        elif ended:
            break
    os.close(master)
    return process.wait(), out


def test_other_writers_go_to_the_log(tmp_path: Path) -> None:
    status, out = run_in_terminal(tmp_path, typed=CTRL_Q)
    log = (tmp_path / "log" / "app.log").read_bytes()
    assert status == 0
    assert b"NOISE-ON-1" in log and b"NOISE-ON-2" in log
    assert b"NOISE-ON" not in out
    assert b"Logits" in out and b"\x1b[?1049l" in out  # it was drawn, and the terminal was restored
    assert out.rstrip().endswith(b"AFTER-THE-APP")


def test_the_app_continues_after_an_exception(tmp_path: Path) -> None:
    status, out = run_in_terminal(tmp_path, ready="self.call_later(self.exit); raise RuntimeError('a bug')")
    log = (tmp_path / "log" / "app.log").read_text()
    assert status == 0, log
    assert "Traceback (most recent call last):" in log and "RuntimeError: a bug" in log
    assert out.rstrip().endswith(b"AFTER-THE-APP")


def test_giving_up_is_an_error_of_one_line(tmp_path: Path) -> None:
    status, out = run_in_terminal(
        tmp_path, ready="self.lab_screen.call_later(self.give_up); raise RuntimeError('a bug')"
    )
    log = (tmp_path / "log" / "app.log").read_text()
    assert status != 0
    assert "RuntimeError: a bug" in log and "\u2502" not in log  # a plain traceback, without boxes
    assert b"stopped on an internal error" in out  # the UserError printed by the command line


def test_invalid_utf8_input_does_not_crash(tmp_path: Path) -> None:
    status, out = run_in_terminal(tmp_path, runner=TYPED, typed=b"caf\xe9 \x9b31m\xff end")
    log = (tmp_path / "log" / "app.log").read_bytes()
    assert status == 0, log
    assert b"xcaf\\ufffd \\ufffd31m\\ufffd end" in log
    assert "\x9b" not in out.decode(errors="replace")


@given(
    st.lists(
        st.sampled_from(["\x1b", "\x1b[", "\x1b[20", "\x1b[201", "[201~", "a", "é", "🙂", "\x1b[200~"]), max_size=12
    ),
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
)
def test_a_paste_in_any_pieces(parts: list[str], sizes: list[int]) -> None:
    """However the terminal's bytes are split, the parser sees one paste, with substitutes for escape characters."""
    text = "".join(parts)
    assume(PASTE_ENDS not in text)
    data = f"k{PASTE_BEGINS}{text}{PASTE_ENDS}k\x1b[A".encode()
    reader, out = InputDecoder(), ""
    turn = 0
    while data:
        size = sizes[turn % len(sizes)]
        out, data, turn = out + reader.decode(data[:size]), data[size:], turn + 1
    out += reader.decode(b"", final=True)
    assert out == f"k{PASTE_BEGINS}{text.replace(ESC, STAND_IN)}{PASTE_ENDS}k\x1b[A"


def test_escape_characters_in_a_paste_are_text(tmp_path: Path) -> None:
    """Some terminals (tmux) paste escape characters unchanged: the text arrives complete and in order."""
    pasted = b"\x1b[200~ one\ttwo\x1b[31m \x1b]0;t\x07 \x1b[20 \x1b three end\x1b[201~"
    status, out = run_in_terminal(tmp_path, runner=TYPED, typed=pasted)
    log = (tmp_path / "log" / "app.log").read_bytes()
    assert status == 0, log
    assert ascii("x one\ttwo\x1b[31m \x1b]0;t\x07 \x1b[20 \x1b three end").encode() in log
    assert b"\x1b]0;t" not in out


@pytest.mark.parametrize("text", ["a word 日本 é \r\n\t" * 40, "x" * FLOOD, "\u200d\u3000" * FLOOD])
def test_much_text_at_once_becomes_a_paste_without_markers(text: str) -> None:
    assert InputDecoder().decode(text.encode()) == PASTE_BEGINS + text + PASTE_ENDS
    little = text[: FLOOD - 1]
    assert InputDecoder().decode(little.encode()) == little  # a held key


@pytest.mark.parametrize("keys", ["\x1b[A" * FLOOD, "a" * FLOOD + "\x01", "a" * FLOOD + "\x7f", "a" * FLOOD + "\x1b[A"])
def test_keys_within_much_text_stay_keys(keys: str) -> None:
    assert InputDecoder().decode(keys.encode()) == keys
    reader = InputDecoder()
    # a key split into two reads
    assert reader.decode(b"\x1b") + reader.decode(b"[A" + b"a" * FLOOD) == "\x1b[A" + "a" * FLOOD


def keys_of(*reads: str) -> list[str]:
    """The keys that Textual's own parser makes of what the terminal sends, in as many reads."""
    parser, reader = XTermParser(), InputDecoder()
    tokens = [token for read in reads for token in parser.feed(reader.decode(read.encode()))]
    return [f"{token.key} {token.character}" for token in [*tokens, *parser.feed("")] if isinstance(token, Key)]


@pytest.mark.parametrize("key", [*"14gA;-=/ é日", "§"])
def test_esc_and_a_key_in_one_read_are_two_keys(key: str) -> None:
    """tmux holds Esc for half a second, so the two arrive together: Textual alone reads Alt, and types a character."""
    (alone,) = keys_of(key)
    esc = "escape \x1b"
    assert keys_of(f"\x1b{key}") == keys_of("\x1b", key) == [esc, alone]
    assert keys_of(f"a\x1b{key}{key}") == [*keys_of("a"), esc, alone, alone]
    assert keys_of(f"\x1b\x1b{key}") == [esc, esc, alone]


@pytest.mark.parametrize(
    "keys", ["\x1b[A", "\x1bOP", "\x1b\r", "\x1bf", "\x1bb", "\x1b[1;3C", "\x1b[49;5u", "\x1b\x7f"]
)
def test_sequences_of_other_keys_stay_as_they_are_however_they_are_split(keys: str) -> None:
    for at in range(1, len(keys)):
        reader = InputDecoder()
        assert reader.decode(keys[:at].encode()) + reader.decode(keys[at:].encode()) == keys


def test_a_paste_without_markers_arrives_whole(tmp_path: Path) -> None:
    text = "wörd 日本 " * 300 + "end"
    status, _ = run_in_terminal(tmp_path, runner=TYPED, typed=text.encode())
    log = (tmp_path / "log" / "app.log").read_bytes()
    assert status == 0, log
    assert ascii("x" + text).encode() in log


def test_a_broken_driver_is_one_line(tmp_path: Path) -> None:
    broken = "self.call_later(self.panic, 'the driver broke')"
    status, out = run_in_terminal(tmp_path, ready=broken)
    assert status != 0
    assert b"stopped on an internal error" in out


@pytest.mark.parametrize("piped", ["stdin", "both outputs"])
def test_without_a_terminal_it_says_what_to_do(tmp_path: Path, piped: str) -> None:
    program = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(TESTS)!r})
        from fake_engine import FakeEngine
        from tui_llm.common.errors import UserError
        from tui_llm.tui.app import LabApp
        from tui_llm.tui.terminal import run_app
        try:
            run_app(LabApp(FakeEngine))
        except UserError as error:
            sys.exit(f"said: {{error}}")
    """)
    master, slave = pty.openpty()
    env = {**os.environ, "TUI_LLM_HOME": str(tmp_path), "PYTHONPATH": str(TESTS.parents[1])}
    stdin = subprocess.DEVNULL if piped == "stdin" else slave
    done = subprocess.run([sys.executable, "-c", program], stdin=stdin, capture_output=True, env=env, check=False)
    os.close(slave)
    os.close(master)
    assert done.returncode == 1
    assert done.stderr.startswith(b"said: the app needs a terminal") and done.stderr.count(b"\n") == 1


def test_the_end_of_the_input_ends_reading() -> None:
    """A terminal that is gone is always ready to be read, and gives no bytes: reading went on, and kept the process alive."""
    with pytest.raises(OSError, match="Input/output error") as ended:
        InputDecoder().decode(b"")
    assert ended.value.errno == errno.EIO


def test_the_output_thread_outlives_a_closed_terminal() -> None:
    """Textual's own ends at the error, and the app waits for ever at the 31st write."""
    master, slave = pty.openpty()
    screen = TerminalOutput(os.fdopen(slave, "wb"), encoding="utf-8", newline="")
    writer = WriterThread(screen)
    writer.start()
    os.close(master)
    for _ in range(100):
        writer.write("frame" * 1000)
    writer.stop()
    screen.close()
