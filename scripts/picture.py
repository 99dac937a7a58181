"""Draws docs/app.svg: the real app on the shipped model, after a short training run and a few drawn tokens.

python scripts/picture.py
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


async def draw(path: Path) -> None:
    from tui_llm.engine import PipelineEngine
    from tui_llm.training import launch
    from tui_llm.training.presets import from_fields, preset
    from tui_llm.tui.app import LabApp

    run = launch.create(
        "readme", [str(REPOSITORY / "tui_llm")], from_fields({"steps": 150}, preset("toy")), preset="toy"
    )
    launch.start(run)
    while run.status().state not in ("finished", "failed"):
        await asyncio.sleep(0.2)
    app = LabApp(lambda: PipelineEngine("cpu"), prompt="Once upon a time, there was a little")
    async with app.run_test(size=(128, 42)) as pilot:
        lab = app.lab_screen
        while lab.reading is None:
            await pilot.pause(0.05)
        await pilot.press("escape")
        for number in range(12):
            await pilot.press("g")
            while lab.reading.tokens.continuation <= number:
                await pilot.pause(0.05)
        await pilot.pause(1.0)
        path.parent.mkdir(exist_ok=True)
        path.write_text(app.export_screenshot(title="tui-llm"), encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["TUI_LLM_HOME"] = home
        asyncio.run(draw(REPOSITORY / "docs" / "app.svg"))


if __name__ == "__main__":
    main()
