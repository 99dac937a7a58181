"""The app on the fake engine, to try by hand: `python tests/tui/fake_app.py [--hostile] [PROMPT]`."""

from __future__ import annotations

import sys

from fake_engine import FakeEngine

from tui_llm.tui.app import LabApp
from tui_llm.tui.terminal import run_app

if __name__ == "__main__":
    words = sys.argv[1:]
    hostile = "--hostile" in words
    prompts = [word for word in words if word != "--hostile"]
    raise SystemExit(run_app(LabApp(lambda: FakeEngine(hostile), prompt=(prompts or ["The cat sat on the"])[0])))
