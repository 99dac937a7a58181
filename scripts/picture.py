"""Draw the pictures of README and docs: the real app with the shipped model and typed keys.

python scripts/picture.py [NAME …]
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PROMPT = "Once upon a time, there was a little"
WHY = "Lily had a dog named Max. One day, Lily and Max went to the park. Lily said to"  # a head finds the name again

AGAIN = "Mia found a little green frog. Mia found a little green"  # the model expects the frog again


@dataclass(frozen=True)
class Picture:
    """docs/NAME.svg: the screen of `size` after `keys`; a number is a pause in seconds."""

    name: str
    keys: Sequence[str | float]
    size: tuple[int, int] = (100, 30)
    prompt: str = PROMPT


# "… a little boy named Tim. Tim": the most probable of a few plausible tokens is the target.
DRAWN: tuple[str | float, ...] = (*("g", 0.6) * 5, "home", "enter")
PICTURES = (
    Picture("app", ("escape", 0.5, *DRAWN, 1.0), (128, 42)),
    Picture("tokens", ("escape", "1", "z", "k", 0.8, "comma", 0.3, "comma", 0.8), (80, 24)),
    Picture("stages", ("escape", "2", "z", "C", 1.0), (110, 30)),
    Picture("learn", ("escape", "3", "L", 1.5, "space", 2.0, "space", 2.0), (100, 30)),
    Picture("tree", ("escape", "5", "T", 1.5, "e", 1.5, "right", "e", 1.5, "left", "down", "e", 1.5), (100, 30)),
    Picture("inside", ("escape", "A", 2.0, "down", "down", "right_square_bracket", 1.0), (110, 30)),
    Picture("why", ("escape", 0.5, "semicolon", 3.0), (100, 26), WHY),
    Picture("heads", ("escape", 0.5, "asterisk", 3.0, "t", 3.0, "x", 3.0), (100, 30), AGAIN),
    Picture("tour", ("f2", "escape", 1.0, "f5", 0.5, "8", "enter", 1.0, "1", "E", 2.0), (120, 30)),
    Picture("training", ("escape", "4", 1.0), (128, 42)),
    Picture("training-80x24", ("escape", "4", 1.0), (80, 24)),
    Picture("training-120x40", ("escape", "4", 1.0), (120, 40)),
    Picture("training-200x60", ("escape", "4", 1.0), (200, 60)),
    Picture("batch", ("escape", "4", "B", 1.5), (100, 30)),
    Picture("learned", ("escape", "4", "h", 1.5), (100, 30)),
)


async def train() -> None:
    """Trains a short run on Python's language reference, with two pinned prompts."""
    from tui_llm.training.plan import launch
    from tui_llm.training.run import pins
    from tui_llm.training.run.settings import from_fields, preset

    settings = from_fields({"steps": 150, "eval_every": 15, "tokenizer": "nano"}, preset("toy"))
    pinned = [pins.parse("The value of=> the"), pins.parse("the object is")]
    run = launch.create("readme", ["python-reference"], settings, preset="toy", pinned=pinned)
    launch.start(run)
    while run.status().state not in ("finished", "failed"):
        await asyncio.sleep(0.2)


async def draw(picture: Picture) -> None:
    from tui_llm.engine import PipelineEngine
    from tui_llm.tui.app import LabApp

    app: Any = LabApp(lambda: PipelineEngine("cpu"), prompt=picture.prompt)
    app.lab_screen.tour.unused = False  # without the line for newcomers
    async with app.run_test(size=picture.size) as pilot:
        while app.lab_screen.reading is None:
            await pilot.pause(0.05)
        for key in picture.keys:
            if isinstance(key, str):
                await pilot.press(key)
            else:
                await pilot.pause(key)
        path = REPOSITORY / "docs" / f"{picture.name}.svg"
        path.write_text(app.export_screenshot(title="tui-llm"), encoding="utf-8")


async def draw_all(names: Sequence[str]) -> None:
    if not names or any(picture.name in names and "4" in picture.keys for picture in PICTURES):
        await train()
    for picture in PICTURES:
        if not names or picture.name in names:
            await draw(picture)


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["TUI_LLM_HOME"] = home
        asyncio.run(draw_all(sys.argv[1:]))


if __name__ == "__main__":
    main()
