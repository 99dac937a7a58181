"""Bell and desktop notification: by the bytes that are written; and the lines about live runs after the app's end."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import fake_run
import pytest
from helpers import make_app, until
from test_terminal import CTRL_Q, run_in_terminal
from test_training_pane import HOSTILE

from tui_llm.training.run.live import MOST, farewell
from tui_llm.training.run.snapshot import RunReader
from tui_llm.tui.notices import bytes_for
from tui_llm.tui.runs.run_news import RunNews
from tui_llm.tui.state import saved_state


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path))
    return tmp_path


OSC_9, OSC_777 = "\x1b]9;tui-llm: a is done\x07", "\x1b]777;notify;tui-llm;a is done\x07"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-256color"}, "\x07" + OSC_9 + OSC_777),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "\x07" + OSC_9),
        ({"TERM": "xterm-256color", "WT_SESSION": "1"}, "\x07" + OSC_9),
        ({"TERM": "rxvt-unicode-256color"}, "\x07" + OSC_777),
        ({"TERM": "foot"}, "\x07" + OSC_777),
        (
            {"TERM": "tmux-256color", "TMUX": "/tmp/tmux", "TERM_PROGRAM": "tmux"},
            "\x07\x1bPtmux;\x1b" + OSC_9 + "\x1b\\\x1bPtmux;\x1b" + OSC_777 + "\x1b\\",
        ),
        ({"TERM": "screen", "STY": "1.pts"}, "\x07\x1bP" + OSC_9 + "\x1b\\\x1bP" + OSC_777 + "\x1b\\"),
    ],
)
def test_each_terminal_gets_its_sequence(environment: dict[str, str], expected: str) -> None:
    assert bytes_for("a is done", environment) == expected


def test_foreign_text_cannot_end_a_sequence() -> None:
    sent = bytes_for(f"4;1;{HOSTILE}\x1b\\\x9c\x07\n{'x' * 10_000}", {"TERM": "xterm"})
    assert re.fullmatch(
        r"\x07\x1b\]9;[^\x00-\x1f\x7f-\x9f\u202e]{1,220}\x07\x1b\]777;notify;tui-llm;[^;\x00-\x1f\x7f-\x9f]{1,220}\x07",
        sent,
    )
    assert not sent.startswith("\x07\x1b]9;4")  # a progress bar in some terminals


def test_news_are_what_was_not_there_at_first() -> None:
    run, news = fake_run.make("tales", steps=400, done=100, state="running"), RunNews()
    fake_run.add(run, 101, 101, loss=9.0)
    reader = RunReader(run)
    with fake_run.alive(run):
        assert news.of(reader.read()) == []  # this spike is old
        fake_run.add(run, 102, 200)
        assert news.of(reader.read()) == []
        fake_run.add(run, 201, 201, loss=9.0)
        assert news.of(reader.read()) == ["tales: spike at step 201"] and news.of(reader.read()) == []
    (line,) = news.of(reader.read())
    assert line.startswith("tales died: step 201 of 400")
    with fake_run.alive(run):
        assert news.of(reader.read()) == []
    run.write_status("finished", "done")
    assert news.of(reader.read()) == ["tales is done: step 201 of 400, loss 9.000"]
    assert news.of(None) == []


ENDING = """
    import os, sys
    sys.path.insert(0, {tests!r})
    import fake_run
    from fake_engine import FakeEngine
    from tui_llm.tui.app import LabApp
    from tui_llm.tui.terminal import run_app

    class Watching(LabApp):
        def on_ready(self):
            self.run = fake_run.make("tales", steps=400, done=100, state="running")
            {ready}
            self.holding = fake_run.alive(self.run)
            self.worker = self.holding.__enter__()
            self.lab_screen.panes["training"].follow(self.run)
            self.set_interval(0.05, self.look)

        def look(self):
            snapshot = self.lab_screen.panes["training"].snapshot
            if snapshot is not None and snapshot.status.state == "running":
                self.worker.kill()
                self.worker.wait()

        def on_run_noticed(self, event):
            self.call_later(self.exit)  # once the app has handled it

    raise SystemExit(run_app(Watching(FakeEngine)))
"""


@pytest.mark.parametrize("rings", [True, False])
def test_the_terminal_gets_the_bell_and_the_notification(tmp_path: Path, rings: bool) -> None:
    status, out = run_in_terminal(tmp_path, runner=ENDING, ready="pass" if rings else "self.action_toggle_bell()")
    assert status == 0, out[-500:]
    assert (b"]777;notify;tui-llm;tales died: step 100 of 400" in out) is rings
    assert (b"]9;tui-llm: tales died: step 100 of 400" in out) is rings


def test_nothing_is_sent_if_stdout_is_no_terminal(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        status, out = run_in_terminal(tmp_path, runner=ENDING, stdout=file.fileno())
    assert status == 0 and b"tales died" not in (tmp_path / "out").read_bytes()
    assert b"]777;" not in out and b"]9;" not in out


async def test_the_bell_is_off_by_a_key_and_stays_off() -> None:
    app = make_app()
    written = []
    app.writer = type("Writer", (), {"note": lambda _self, state: written.append(state), "warn": None})()
    async with app.run_test(size=(80, 24)) as pilot:
        app._painted = True
        await pilot.press("escape", "4", "D")
        await until(pilot, lambda: not app.bell_rings)
        assert saved_state.values(written[-1])["bell"] is False
        await pilot.press("D")
        await until(pilot, lambda: app.bell_rings)
    restored = make_app()
    restored._restore(saved_state.parse({"version": 1, "bell": False}))
    assert not restored.bell_rings and not restored.on_terminal  # on_terminal: only `run_app` sets it


# ── what goes on ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_live_runs_are_named_after_the_end(tmp_path: Path) -> None:
    assert farewell() == []
    first, second = (
        fake_run.make(name, steps=400, done=10 + i, state="running") for i, name in enumerate(("first", "second"))
    )
    with fake_run.alive(first):
        assert farewell() == [
            "run first goes on training (step 10 of 400)",
            "watch it: tui-llm, pane 4 · stop it: tui-llm stop first (it saves first)",
        ]
        status, out = run_in_terminal(tmp_path, typed=CTRL_Q)
        assert status == 0
        end = out[out.rindex(b"\x1b[?1049l") :]  # on the normal screen
        assert b"run first goes on training (step 10 of 400)" in end and b"stop it: tui-llm stop first" in end
        second.write_status("paused", "paused")
        with fake_run.alive(second):
            assert farewell()[1:] == [
                "run second is still paused (step 11 of 400)",
                "watch them: tui-llm, then R · stop one: tui-llm stop NAME (it saves first)",
            ]
    assert farewell() == []
    status, out = run_in_terminal(tmp_path, typed=CTRL_Q)
    assert status == 0 and b"training (step" not in out[out.rindex(b"\x1b[?1049l") :]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_after_a_signal_too(tmp_path: Path, name: str) -> None:
    with fake_run.alive(fake_run.make("first", steps=400, done=10, state="running")):
        number = getattr(signal, name)
        ready = f"self.set_timer(0.1, lambda: os.kill(os.getpid(), {int(number)}))"
        status, out = run_in_terminal(tmp_path, ready=ready)
    assert status == 128 + number
    assert b"run first goes on training (step 10 of 400)" in out[out.rindex(b"\x1b[?1049l") :]


def test_many_runs_and_hostile_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tui_llm.training.run import live

    runs = [fake_run.make(f"run-{i:02}", done=1) for i in range(MOST + 3)]
    (home / "runs" / "bad\x1b[31m").mkdir()
    (runs[0].path / "config.json").replace(home / "runs" / "bad\x1b[31m" / "config.json")
    monkeypatch.setattr("tui_llm.training.run.run.Run.alive", lambda _run: True)
    lines = live.farewell()
    assert len(lines) == MOST + 2 and "3 more runs" in lines[-2] and not any("\x1b" in line for line in lines)
