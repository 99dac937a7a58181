"""Measure the latency of the logits table on this machine, and print each figure with its goal.

    python scripts/figures_table.py

It runs the real app without a terminal, at 120×40 for repaints and 100×66 (60 visible rows) for scrolling, with the
shipped model and with random weights over a vocabulary of 50,257 tokens. A repaint is the time from the key to the last
byte that a terminal would receive for it; a frame is the time to render the table's lines. Quote the figures with the
machine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

VOCABULARY = 50257
PROMPT = "The cat sat on the mat and the dog sat on the floor and they were very happy to see the sun. " * 3
TOKENS = 50  # positions of the prompt that the token cursor visits
KEYS = {
    "temperature": ("left_square_bracket", "right_square_bracket"),
    "top-p": ("left_curly_bracket", "right_curly_bracket"),
    "top-k": ("left_parenthesis", "right_parenthesis"),
    "min-p": ("greater_than_sign", "less_than_sign"),
}


def random_model(folder: Path, layers: int = 2, heads: int = 2, width: int = 64, context: int = 128) -> str:
    """Creates a GPT-2 with random weights, over 50,257 tokens: the shipped ones and merges of them."""
    import torch

    from tui_llm.llm.hub import lookup
    from tui_llm.llm.model import checkpoint
    from tui_llm.llm.model.model import GPT
    from tui_llm.llm.model.shape import GPTConfig
    from tui_llm.llm.tokens import vocabulary_folder

    shipped = lookup.find("nano").folder
    known = json.loads((shipped / "vocab.json").read_text("utf-8"))
    merges = (shipped / "merges.txt").read_text("utf-8").rstrip("\n").split("\n")
    end = "<|endoftext|>"
    tokens = [token for token in sorted(known, key=known.__getitem__) if token != end]
    there, letters = set(tokens), [token for token in tokens if token.isascii() and token.isalpha()]
    encode = vocabulary_folder.load_folder(shipped).encode
    for left, right in itertools.product(letters, letters):
        # Only what is these two tokens to the shipped merges, so that the new merges are in order, as tiktoken needs them.
        if (
            len(tokens) < VOCABULARY - 1
            and left + right not in there
            and encode(left + right) == [known[left], known[right]]
        ):
            there.add(left + right)
            tokens.append(left + right)
            merges.append(f"{left} {right}")
    vocabulary = {token: id for id, token in enumerate([*tokens, end])}
    assert len(vocabulary) == VOCABULARY, len(vocabulary)
    torch.manual_seed(1)
    model = GPT(GPTConfig(VOCABULARY, context, layers, heads, width))
    checkpoint.save(model, folder, end_of_text=vocabulary[end])
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", "utf-8")
    return str(folder)


class Paints:
    """Converts every screen update to bytes, as a terminal driver does, and records when the last one was done."""

    def __init__(self, app: Any) -> None:
        self.app, self.last = app, 0.0
        self._render = app.screen._compositor.render_update
        app.screen._compositor.render_update = self._taken

    def _taken(self, *arguments: Any, **options: Any) -> Any:
        update = self._render(*arguments, **options)
        if update is not None:
            len(update.render_segments(self.app.console))
        self.last = time.perf_counter()
        return update

    async def settled(self, answered: Callable[[], bool], quiet: float = 0.03) -> float:
        """Waits for the answer and then for `quiet` seconds without an update. Returns the time of the last update."""
        while not answered():
            await asyncio.sleep(0.0003)  # sleep(0) would starve the engine's thread
        since = time.perf_counter()
        while time.perf_counter() - max(since, self.last) < quiet:
            await asyncio.sleep(0.001)
        return self.last


Row = Callable[[str, list[float], float], None]


async def measure(model: str, row: Row) -> None:
    await measure_repaints(model, row)
    await measure_scrolling(model, row)


async def measure_repaints(model: str, row: Row) -> None:
    from textual.geometry import Region

    from tui_llm.engine import PipelineEngine
    from tui_llm.tui.app import LabApp
    from tui_llm.tui.lab.panes.logits import LogitsPane

    app = LabApp(lambda: PipelineEngine("cpu"), model=model, prompt=PROMPT)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen

        def answered() -> bool:
            return lab.reading is not None and lab.reading.request.number == lab.lab.number

        while lab.reading is None or lab.reading.loss is None:
            await pilot.pause(0.02)
        await pilot.press("escape", "2")
        pane, paints = lab.query_one(LogitsPane), Paints(app)
        await paints.settled(answered)

        async def repaints(what: str, actions: Iterable[str]) -> None:
            times, work = [], []
            for action in actions:
                await pilot.pause()
                began, cpu = time.perf_counter(), time.process_time()
                await lab.run_action(action)
                times.append(await paints.settled(answered) - began)
                work.append(time.process_time() - cpu)
            row(f"{what}: key to repainted panes", times, 0.016)
            print(f"{'  of it work, all threads, median':58} {statistics.median(work) * 1000:13.3g} ms", flush=True)

        for what, keys in KEYS.items():
            actions = [binding.action for key in keys for binding in lab._bindings.key_to_bindings[key]]
            await repaints(what, actions[:2] * 20)
        lab.action_token_cursor_to(0)
        await paints.settled(answered)
        # Move from token to token: each position is read for the first time.
        await repaints("token cursor", ["token_cursor(1)"] * (TOKENS - 1))
        times = []
        for turn in range(60):
            began = time.perf_counter()
            pane.refresh()
            pane.action_scroll_down() if turn % 20 < 15 else pane.action_scroll_up()
            pane.render_lines(Region(0, 0, pane.size.width, pane.size.height))
            times.append(time.perf_counter() - began)
        row("row cursor: key to repainted table", times, 0.016)


async def measure_scrolling(model: str, row: Row) -> None:
    from textual.geometry import Region

    from tui_llm.engine import PipelineEngine
    from tui_llm.tui.app import LabApp
    from tui_llm.tui.lab.panes.logits import LogitsPane

    app = LabApp(lambda: PipelineEngine("cpu"), model=model, prompt="The cat sat on the mat and the dog sat on the")
    async with app.run_test(size=(100, 72)) as pilot:
        lab = app.lab_screen
        while lab.reading is None or lab.reading.loss is None:
            await pilot.pause(0.02)
        await pilot.press("escape", "2", "z")
        await pilot.pause()
        pane = lab.query_one(LogitsPane)
        rows = len(pane.in_sight)
        frames, work, waits, gaps, last = [], [], [], [], time.perf_counter()
        for at in range(0, pane.row_count(100) - rows, max(1, pane.row_count(100) // 150)):
            began, cpu = time.perf_counter(), time.thread_time()
            pane.scroll_to(y=at, animate=False, force=True)
            pane.refresh()
            pane.render_lines(Region(0, 0, pane.size.width, pane.size.height))
            frames.append(time.perf_counter() - began)
            work.append(time.thread_time() - cpu)
            while any(pane.candidate_at(index) is None for index in pane.in_sight if pane.selectable(index)):
                last = time.perf_counter()
                await asyncio.sleep(0.0005)
                gaps.append(time.perf_counter() - last)
            waits.append(time.perf_counter() - began)
        row(f"scrolling: a frame of {rows} rows", frames, 0.030)
        print(
            f"{'  of it work, median and longest':58} {statistics.median(work) * 1000:13.3g} {max(work) * 1000:13.3g} ms",
            flush=True,
        )
        row("scrolling: longest the screen's thread stood still", gaps or [0.0], 0.030)
        print(
            f"{'  jump to any place until its rows are there, median':58} {statistics.median(waits) * 1000:9.3g} ms",
            flush=True,
        )


def main() -> None:
    from tui_llm.commands.shared.app import TEXTUAL

    for name, value in TEXTUAL.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("TUI_LLM_HOME", tempfile.mkdtemp(prefix="tui-llm-figures-"))
    import torch

    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
    )

    def row(what: str, seconds: list[float], goal: float) -> None:
        ordered = sorted(seconds)
        median, high = statistics.median(ordered), ordered[int(len(ordered) * 0.95)]
        mark = "met" if median < goal else "NOT MET"
        print(
            f"{what:58} median {median * 1000:6.3g}  95th {high * 1000:6.3g}  longest {ordered[-1] * 1000:6.3g} ms"
            f"  goal < {goal * 1000:g} ms  {mark}",
            flush=True,
        )

    print("nano, 4,096 tokens")
    asyncio.run(measure("nano", row))
    with tempfile.TemporaryDirectory() as folder:
        print(f"random weights, {VOCABULARY:,} tokens")
        asyncio.run(measure(random_model(Path(folder)), row))


if __name__ == "__main__":
    main()
