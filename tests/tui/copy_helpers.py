"""The screens that train a copy, on the real engine with a tiny model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from helpers import answered, until
from textual.pilot import Pilot
from textual.screen import Screen

from tests.byte_models import save_byte_model
from tui_llm.engine import PipelineEngine
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.tui.app import LabApp

Opened = TypeVar("Opened", bound=Screen[None])


def tiny_model(folder: Path) -> str:
    return str(save_byte_model(folder, GPTConfig(vocabulary=257, context=64, layers=1, heads=2, width=16)))


@asynccontextmanager
async def opened(
    kind: type[Opened], key: str, model: str, size: tuple[int, int]
) -> AsyncIterator[tuple[LabApp, Pilot[None], Opened]]:
    """The app with the screen that `key` opens, after a prompt."""
    app = LabApp(lambda: PipelineEngine("cpu"), model=model, prompt="The cat")
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", key)
        await until(pilot, lambda: isinstance(app.screen, kind))
        screen = app.screen
        assert isinstance(screen, kind)
        yield app, pilot, screen
