"""A second signal to the app, which an earlier signal or its quit key is ending: `tui-llm` as a process in a terminal."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from test_saved_state_process import opened

# The second signal comes while the app ends: once its exit has begun, or after its event loop has closed, when only the
# last write is left. The handler of a signal to the own process runs before the next line does.
SECOND = """
import os, signal
from tui_llm.tui.app import LabApp
from tui_llm.tui.state.state_file import StateWriter
exit, finish = LabApp.exit, StateWriter.finish

def send():
    for number in {numbers}:
        os.kill(os.getpid(), number)

def exit_and_send(app, *given, **named):
    exit(app, *given, **named)
    LabApp.exit = exit
    send()

def send_and_finish(writer):
    send()
    finish(writer)

{patch}
"""
MOMENTS = {
    "as it ends": "LabApp.exit = exit_and_send",
    "before the last write": "StateWriter.finish = send_and_finish",
}
TERM, HUP = signal.SIGTERM, signal.SIGHUP


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    ("first", "then"),
    [(HUP, [HUP]), (HUP, [HUP, HUP, TERM]), (TERM, [HUP]), (HUP, [TERM]), (None, [HUP]), (None, [TERM, HUP])],
    ids=["HUP HUP", "HUP HUP HUP TERM", "TERM HUP", "HUP TERM", "quit HUP", "quit TERM HUP"],
)
def test_a_second_signal_does_not_cut_the_orderly_end(
    home: Path, moment: str, first: signal.Signals | None, then: list[signal.Signals]
) -> None:
    before = SECOND.format(numbers=[int(number) for number in then], patch=MOMENTS[moment])
    terminal = opened(home, "--prompt", "The cat", before=before)
    terminal.paste(" zebra")
    terminal.until(b"zebra")
    if first is None:
        terminal.type("\x11")
    else:
        terminal.process.send_signal(first)
    status = terminal.wait()
    os.close(terminal.master)
    # The first signal's status; of a quit by its key, that of the signal which found the app still running.
    expected = [128 + first] if first is not None else [0, *(128 + number for number in then)]
    assert status in expected, terminal.out[-1000:]
    assert terminal.remembered()["prompt"] == "The cat zebra"
    assert b"\x1b[?1049l" in terminal.out, "the terminal is given back"
    assert b"Traceback" not in terminal.out and b"internal error" not in terminal.out


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_second_sigterm_ends_it_at_once(home: Path, moment: str) -> None:
    terminal = opened(home, "--prompt", "The cat", before=SECOND.format(numbers=[int(TERM)], patch=MOMENTS[moment]))
    terminal.process.send_signal(TERM)
    assert terminal.wait() == -TERM
    os.close(terminal.master)
