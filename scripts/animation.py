"""Draw docs/animation.svg, the animated picture of the README: the real app with the shipped model, and typed keys.

python scripts/animation.py [--cast FILE]

A short story is played; what the app shows after each key becomes an event of an asciicast v2 (`asciinema play FILE`
shows it), and `cast_svg.py` turns that into an SVG. How long each frame stays is the story's, not the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cast_svg
from rich.color import ColorSystem
from rich.segment import Segment

if TYPE_CHECKING:
    from textual.pilot import Pilot

REPOSITORY = Path(__file__).resolve().parents[1]
SIZE = (100, 30)
RATE = 6
TRAINING = 8.0  # seconds that the run's chart takes in the picture, whatever it takes on the machine
TYPED = "Once upon a time, there was a little"
TITLE = "The app in motion"
DESCRIPTION = (
    "A prompt is typed, and the probabilities of the next token follow each letter; the temperature changes them; "
    "a target gives a loss; tokens are drawn; a model is trained, with its loss as a live chart."
)


class Recorder:
    """The app, driven by keys, and the cast of what it showed."""

    def __init__(self, app: Any, pilot: Pilot[None]) -> None:
        self.app, self.pilot, self.time = app, pilot, 0.0
        self.lines = [""] * SIZE[1]
        header = {
            "version": 2,
            "width": SIZE[0],
            "height": SIZE[1],
            "title": "tui-llm",
            "env": {"TERM": "xterm-256color"},
        }
        self.events: list[Any] = [header]

    def caption(self, text: str) -> None:
        self.events.append((round(self.time, 3), "m", text))

    def frame(self, seconds: float) -> None:
        """Records what the screen shows now, for so long."""
        # As Textual's own export_screenshot does
        strips = self.app.screen._compositor.render_strips()
        lines = [_ansi(strip) for strip in strips]
        changed = [f"\x1b[{at + 1};1H{line}" for at, line in enumerate(lines) if line != self.lines[at]]
        if changed:
            self.events.append((round(self.time, 3), "o", "".join(changed)))
        self.lines, self.time = lines, self.time + seconds

    def shorten(self, begin: float, seconds: float) -> None:
        """Lets all that was recorded since `begin` last so long, with at most `RATE` frames a second."""
        scale = seconds / (self.time - begin)
        header, *events = self.events
        kept = [event for event in events if event[0] <= begin]
        merged: dict[int, dict[str, str]] = {}  # the lines that change in each frame
        for time, _, data in events[len(kept) :]:
            lines = merged.setdefault(math.ceil((time - begin) * scale * RATE), {})
            lines |= dict(cast_svg.LINE.findall(data))
        for at, lines in merged.items():
            data = "".join(f"\x1b[{number};1H{line}" for number, line in lines.items())
            kept.append((round(begin + at / RATE, 3), "o", data))
        self.events, self.time = [header, *kept], begin + seconds

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self.pilot.pause(0.02)

    def _read(self) -> bool:
        lab = self.app.lab_screen
        return lab.reading is not None and lab.reading.request.number == lab.lab.number

    async def press(self, seconds: float, *keys: str) -> None:
        """Presses keys, waits until every number on the screen belongs to the new state, and records a frame."""
        await self.pilot.press(*keys)
        await self.until(self._read)
        await self.pilot.pause()
        self.frame(seconds)

    def cast(self) -> str:
        events = [*self.events, (round(self.time, 3), "o", "")]
        return "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events)


def _ansi(strip: Any) -> str:
    pieces = (segment for segment in strip if isinstance(segment, Segment) and segment.text)
    return "".join(
        one.style.render(one.text, color_system=ColorSystem.TRUECOLOR) if one.style else one.text for one in pieces
    )


async def predict(recorder: Recorder, typed: str) -> None:
    """The prompt, the temperature, a target, drawn tokens."""
    recorder.caption("Type: each letter changes the probabilities of the next token")
    for letter in typed:
        await recorder.press(0.09, {" ": "space", ",": "comma"}.get(letter, letter))
    await recorder.press(1.5, "escape")
    recorder.caption("Temperature: the same logits, flatter or sharper probabilities")
    for key in ("right_square_bracket",) * 5 + ("left_square_bracket",) * 5:
        await recorder.press(0.3, key)
    recorder.caption("A target: its loss is −ln p, what training lowers")
    await recorder.press(0.6, "2")
    await recorder.press(0.6, "down")
    await recorder.press(2.4, "enter")
    recorder.caption("Draw tokens from the same probabilities")
    for _ in range(14):
        await recorder.press(0.25, "g")
    recorder.time += 1.0


async def train(recorder: Recorder) -> None:
    """A run is started in the form, and its loss chart grows."""
    from tui_llm.training.run.run import Run

    app, pilot = recorder.app, recorder.pilot
    recorder.caption("Train a model on a text of your own")
    await recorder.press(0.5, "4")
    await pilot.press("n")
    await pilot.pause(0.3)
    recorder.frame(0.5)
    for letter in "python-reference":
        await pilot.press({"-": "minus"}.get(letter, letter))
        recorder.frame(0.06)
    await pilot.pause(1.0)  # the form checks the corpus
    recorder.frame(1.0)
    await pilot.press("ctrl+s")
    await recorder.until(lambda: app.screen is app.lab_screen)
    await pilot.press("z")
    recorder.caption("The loss falls, live, in a process of its own (sped up)")
    (home,) = (Path(os.environ["TUI_LLM_HOME"]) / "runs").iterdir()
    begin = recorder.time
    while (state := Run(home).status().state) not in ("finished", "failed"):
        await pilot.pause(0.4)
        recorder.frame(0.4)
    assert state == "finished", state
    recorder.shorten(begin, TRAINING)
    await pilot.pause(2.0)  # the watcher reads what is left
    recorder.frame(1.5)
    recorder.caption("One prompt, one model, five panes: tui-llm")
    await recorder.press(3.5, "z")


async def record(typed: str = TYPED, begun: str = "", training: bool = True) -> str:
    """Plays the story on a prompt that has already `begun`, and returns the asciicast."""
    from tui_llm.engine import PipelineEngine
    from tui_llm.tui.app import LabApp

    app: Any = LabApp(lambda: PipelineEngine("cpu"), prompt=begun)
    async with app.run_test(size=SIZE) as pilot:
        recorder = Recorder(app, pilot)
        await recorder.until(recorder._read)
        await predict(recorder, typed)
        if training:
            await train(recorder)
        return recorder.cast()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cast", type=Path, help="also write the asciicast there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["TUI_LLM_HOME"] = home
        cast = asyncio.run(record())
    if options.cast:
        options.cast.write_text(cast, encoding="utf-8")
    made = cast_svg.svg(cast, TITLE, DESCRIPTION)
    (REPOSITORY / "docs" / "animation.svg").write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
