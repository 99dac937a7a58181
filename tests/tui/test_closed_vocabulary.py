"""A model of characters in the app, on the real engine: every pane shows it, and says which character it does not have."""

from __future__ import annotations

from pathlib import Path

import torch
from helpers import answered, drawn, until

from tui_llm.engine import PipelineEngine
from tui_llm.llm.hub import hub
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens.closed import ClosedTokenizer
from tui_llm.tui.app import LabApp

CHARACTERS = sorted(set("First Citizen: speak, before we proceed any further.\n"))


def model_folder(path: Path) -> Path:
    torch.manual_seed(1)
    vocabulary = ClosedTokenizer("tiny", "char", CHARACTERS)
    checkpoint.save(GPT(GPTConfig(vocabulary.size, context=32, layers=1, heads=2, width=16)), path, end_of_text=None)
    hub.save_vocabulary(vocabulary, path)
    return path


async def test_every_pane_shows_a_model_of_characters(tmp_path: Path) -> None:
    engine = PipelineEngine("cpu")
    app = LabApp(lambda: engine, model=str(model_folder(tmp_path / "tiny")), prompt="speak, we")
    async with app.run_test(size=(140, 45)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)

        def shown() -> str:
            return "\n".join(drawn(app))

        assert lab.reading is not None and lab.reading.problem is None
        assert [CHARACTERS[id] for id in lab.reading.prompt_ids] == list("speak, we")
        assert f"{len(CHARACTERS)} tokens" in shown() or str(len(CHARACTERS)) in shown()
        await pilot.press("escape")
        for keys, wanted in (("1L", "Letters"), ("1C", "Side by side"), ("1E", "raining pairs"), ("5H", "Draw many")):
            await pilot.press(*keys)
            await until(pilot, lambda wanted=wanted: app.screen is not lab and wanted in shown())
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is lab)
        await pilot.press("1", "M")
        await until(pilot, lambda: "no list of merges" in shown())
        if app.screen is not lab:
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is lab)
        lab.prompt.focus()
        lab.prompt.text = "speak €"
        await until(pilot, lambda: "has no character '€'" in shown())
        lab.prompt.text = "speak"
        await answered(pilot, lab)
        assert lab.reading is not None and lab.reading.problem is None and "has no character" not in shown()
