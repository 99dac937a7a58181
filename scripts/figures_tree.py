"""Measure a tree of continuations of 10,000 tokens on this machine, and print each figure with its goal.

    python scripts/figures_tree.py

The shipped model grows it on the CPU; it is saved, opened, and navigated in the real app at 120×40. The screen's own
work for a key is the key's action and the lines rendered for it; it is measured as CPU time, which excludes other load.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

NODES = 10_000
PROMPT = "Once upon a time, there was a little"


def seconds(work: Callable[[], object]) -> float:
    """Returns the CPU time of this thread in seconds."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def row(what: str, value: float, goal: float | None, scale: float, unit: str) -> None:
    met = "" if goal is None else f"  goal < {goal * scale:g} {unit}  {'met' if value < goal else 'NOT MET'}"
    print(f"{what:58} {value * scale:9.3g} {unit:4}{met}", flush=True)


def grow() -> Path:
    from tui_llm.engine import PipelineEngine
    from tui_llm.facts.request import Request
    from tui_llm.facts.sampler import SamplerSettings
    from tui_llm.instruments.tree.question import BranchQuestion, KnownQuestion
    from tui_llm.instruments.tree.tree import Growth, Tree
    from tui_llm.instruments.tree.tree_file import load, save

    engine = PipelineEngine("cpu")
    engine.open("nano")
    request = Request(prompt=PROMPT, sampler=SamplerSettings(temperature=0.8, top_p=0.9))
    tree = Tree(request, engine.weights(), text_ids=engine.answer(KnownQuestion(request)).text)
    growth, batches, taking = Growth(tree, tree.root, 3, 24, 0.0, NODES), [], 0.0
    began, used = time.perf_counter(), time.process_time()
    while not growth.done:
        asked = time.perf_counter()
        answer = engine.answer(BranchQuestion(request, growth.batch(), 3))
        batches.append(time.perf_counter() - asked)
        taking += seconds(lambda answer=answer: growth.take(answer))
    row(f"growing {len(tree):,} tokens, k = 3, in all", time.perf_counter() - began, None, 1, "s")
    row("the processor's time for it", time.process_time() - used, None, 1, "s")
    row("one question of it (32 nodes), median", statistics.median(batches), 0.5, 1000, "ms")
    row("one question of it, the longest", max(batches), None, 1000, "ms")
    row("taking the answers into the tree, per question", taking / len(batches), 0.016, 1000, "ms")
    path = Path(tempfile.mkdtemp(prefix="tui-llm-tree-")) / "tree.json"
    row("saving it, processor's time", seconds(lambda: save(tree, path)), None, 1000, "ms")
    row("reading the file, processor's time", seconds(lambda: load(path)), None, 1000, "ms")
    return path


async def walk(path: Path) -> None:
    from tui_llm.engine import PipelineEngine
    from tui_llm.instruments.tree.tree_file import load
    from tui_llm.tui.app import LabApp
    from tui_llm.tui.instruments.tree.tree import TreeScreen

    app = LabApp(lambda: PipelineEngine("cpu"), prompt=PROMPT)
    async with app.run_test(size=(120, 40)) as pilot:
        while app.lab_screen.reading is None:
            await pilot.pause(0.05)
        await pilot.press("escape", "5", "T")
        while not isinstance(app.screen, TreeScreen):
            await pilot.pause(0.05)
        screen = app.screen
        screen.show_tree(load(path))
        while screen.frozen:
            await pilot.pause(0.05)
        for node in screen.shown_tree.nodes():
            node.collapsed = False
        screen.refill()
        lines, height = screen.lines, screen.lines.size.height

        def key(action: Callable[[], object]) -> float:
            def work() -> None:
                action()
                for y in range(height):
                    lines.render_line(y)

            return seconds(work)

        keys: dict[str, Callable[[], object]] = {
            "line below": lambda: screen.action_line(1),
            "sibling below": lambda: screen.action_sibling(1),
            "to the parent": screen.action_out,
            "into a child": lambda: screen.action_enter() if screen.here.children else screen.action_line(1),
            "to the end": lines.action_scroll_end,
            "to the start": lines.action_scroll_home,
        }
        for name, action in keys.items():
            times = []
            for _ in range(30):
                times.append(key(action))
                await asyncio.sleep(0)
            row(f"cursor, {name}, median of 30", statistics.median(times), 0.016, 1000, "ms")
        screen.action_enter()
        half = screen.shown_tree.root.children[0]
        lines.go(half)
        row(f"pruning {half.size:,} tokens", key(screen.action_prune), None, 1000, "ms")
        row("and putting them back", key(screen.action_undo), None, 1000, "ms")


def main() -> None:
    if not os.environ.get("TUI_LLM_HOME"):
        os.environ["TUI_LLM_HOME"] = tempfile.mkdtemp(prefix="tui-llm-figures-")
    import torch

    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
    )
    asyncio.run(walk(grow()))


if __name__ == "__main__":
    main()
