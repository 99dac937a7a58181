"""The real app and engine with a small Llama: every pane, the chat template, another model with the same prompt."""

from __future__ import annotations

from pathlib import Path

import foreign
import pytest
from helpers import answered, drawn, unsafe, until

from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Target
from tui_llm.tui.app import LabApp
from tui_llm.tui.kit.command import PANES
from tui_llm.tui.lab.lab import LabScreen


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    top = tmp_path_factory.mktemp("models")
    foreign.make("llama", top / "llama")
    foreign.chatty(top / "llama")
    foreign.make("qwen2", top / "gemma", foreign.sentence_piece())
    return top / "llama", top / "gemma"


async def test_every_pane_works_and_switching_keeps_what_was_set(folders: tuple[Path, Path]) -> None:
    app = LabApp(lambda: PipelineEngine("cpu"), model=str(folders[0]), prompt="The cat [/] \x1b sat")
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.screen
        assert isinstance(lab, LabScreen)
        await until(pilot, lambda: lab.reading is not None and lab.reading.loss is not None)
        await pilot.press("escape")
        for number, name in enumerate(PANES, 1):
            await pilot.press(str(number))
            await pilot.pause()
            lines = drawn(app)
            assert lab.panes.current == name and not unsafe(lines)
            assert "waiting for the model" not in "\n".join(lines)
        # chat: the shown text is the text fed to the model
        await pilot.press("1", "J")
        await answered(pilot, lab)
        assert lab.reading.request.chat
        shown = "\n".join(drawn(app))
        assert "the prompt is formatted with the chat template" in " ".join(
            shown.replace("│", " ").replace("┃", " ").split()
        )
        assert "".join(t.text for t in lab.reading.tokens.tokens).endswith("<|im_end|>\n<|im_start|>assistant\n")
        await pilot.press("J")
        await answered(pilot, lab)
        assert not lab.reading.request.chat
        # another vocabulary: a target chosen by id keeps its text
        wanted = next(c for c in lab.reading.distribution.candidates if c.text[:1] == " " and c.text[1:].isalpha())
        lab.lab.target = Target(id=wanted.id)
        lab.readings.request()
        await answered(pilot, lab)
        sampler, prompt, lab.lab.chat = lab.lab.sampler, lab.lab.prompt, True
        lab.models.open(str(folders[1]))
        await until(pilot, lambda: lab.weights.name == "gemma")
        await answered(pilot, lab)
        assert lab.lab.target == Target(text=wanted.text)
        assert (lab.lab.sampler, lab.lab.prompt, lab.lab.chat) == (sampler, prompt, False), "it has no template"
        await pilot.press("1")
        await pilot.pause()
        assert "expects <s> in front" in " ".join("\n".join(drawn(app)).replace("┃", " ").split())
        lab.lab.target = Target(text=" zebra")
        lab.readings.request()
        await answered(pilot, lab)
        assert len(lab.reading.loss.tokens) > 1
        await pilot.press("3")
        await pilot.pause()
        assert "tokens in this vocabulary" in "\n".join(drawn(app))
        await pilot.press("J")
        await pilot.pause()
        assert not lab.lab.chat
