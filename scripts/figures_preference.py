"""Measure learning from preferences on this machine, and print each figure with its goal.

    python scripts/figures_preference.py [CHOICES]

The shipped model, on the CPU with two threads, in the real app at 120×40. A DPO step: two answers of 32 tokens, from the key
of the choice until its result is drawn, which includes learning it, both answers read again, KL and the pair's row on disk.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time

PROMPT = "Once upon a time, there was a little"
CHOICES = 12


def row(what: str, value: float, goal: float | None = None) -> None:
    met = "" if goal is None else f"  goal ≤ {1000 * goal:g} ms  {'met' if value <= goal else 'NOT MET'}"
    print(f"{what:62} {1000 * value:8.0f} ms{met}", flush=True)


async def choices(count: int) -> tuple[list[float], list[float]]:
    """Returns the seconds of each choice and of each drawing of two answers."""
    from tui_llm.engine import PipelineEngine
    from tui_llm.llm.model import device
    from tui_llm.tui.app import LabApp
    from tui_llm.tui.instruments.prefer.prefer import PreferScreen

    device.use_threads(2)
    app = LabApp(lambda: PipelineEngine("cpu"), prompt=PROMPT)
    learned, drew = [], []
    async with app.run_test(size=(120, 40)) as pilot:
        while app.lab_screen.reading is None:
            await pilot.pause(0.05)
        await pilot.press("escape", "j")
        while not isinstance(app.screen, PreferScreen):
            await pilot.pause(0.05)
        screen = app.screen
        while screen.two is None:
            await asyncio.sleep(0.001)
        while len(learned) < count:
            assert screen.two is not None
            full = all(len(one.ids) == 32 for one in (screen.two.left, screen.two.right))
            if full:
                began = time.perf_counter()
                screen.action_choose(0)
                while screen.chosen is None or "margin" not in drawn(app):
                    await asyncio.sleep(0.001)
                learned.append(time.perf_counter() - began)
            began = time.perf_counter()
            screen.action_next() if full else screen.action_neither()
            while screen.two is None or "← A" not in drawn(app):
                await asyncio.sleep(0.001)
            drew.append(time.perf_counter() - began)
    return learned, drew


def drawn(app: object) -> str:
    """The screen's text."""
    strips = app.screen._compositor.render_strips()  # type: ignore[attr-defined]
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else CHOICES
    os.environ["TUI_LLM_HOME"] = tempfile.mkdtemp(prefix="tui-llm-figures-")
    import torch

    print(f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
    learned, drew = asyncio.run(choices(count))
    row("the first choice, which makes the copy, seen on screen", learned[0])
    if rest := learned[1:]:
        row(f"a DPO step of two 32-token answers, seen on screen, median of {len(rest)}", statistics.median(rest), 0.3)
        row("the longest of them", max(rest))
    row("drawing two answers of up to 32 tokens, median", statistics.median(drew))


if __name__ == "__main__":
    main()
