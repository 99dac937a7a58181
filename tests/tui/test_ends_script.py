"""`scripts/ends.py` notices what is wrong with an end: here of programs that stand in for the app."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

STAND_IN = """#!{python}
import os, sys, tty, termios
before = termios.tcgetattr(0)
tty.setraw(0)
os.write(1, b"\\x1b[?1049hparameters")
while (key := os.read(0, 1)) != b"\\x11":
    os.write(1, b"the screen of " + key) if {reached} else None
termios.tcsetattr(0, termios.TCSANOW, before)
os.write(1, b"\\x1b[?1049l")
{last}
"""


@pytest.mark.parametrize(
    ("last", "wrong"),
    [
        ("", ""),
        ("os.write(2, b'Exception ignored in: <function f>')", "a traceback on the terminal"),
        ("os.write(2, b'Traceback (most recent call last):')", "a traceback on the terminal"),
        ("os.makedirs('log'); open('log/errors.log', 'w').write('of a finalizer')", "its log: of a finalizer"),
        ("os.makedirs('log'); open('log/app.log', 'w').write('of the app')", "its log: of the app"),
        ("sys.exit(1)", "its exit status"),
    ],
)
def test_what_is_wrong_with_an_end(last: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = ended(tmp_path, monkeypatch, last, reached=True)
    assert end.wrong.startswith(wrong) and bool(end.wrong) == bool(wrong), end


def test_a_screen_that_is_not_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script(), "HANG", 0.5)  # this wait has its own end
    assert "never came that far" in ended(tmp_path, monkeypatch, "", reached=False).wrong


def script() -> Any:
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    try:
        return importlib.import_module("ends")
    finally:
        sys.path.pop(0)


def ended(home: Path, monkeypatch: pytest.MonkeyPatch, last: str, *, reached: bool) -> Any:
    program = home / "app"
    program.write_text(STAND_IN.format(python=sys.executable, last=last, reached=reached))
    program.chmod(0o700)
    ends = script()
    monkeypatch.setattr(sys, "executable", str(program))
    return ends.end_once(home, ends.Moment("x", b"parameters", (b"x",), 0.1, b"screen of x"), 0.0)
