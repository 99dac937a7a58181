"""The real app and engine with a small Llama: every pane, the chat template, another model with the same prompt."""

from __future__ import annotations

from pathlib import Path

import foreign
import pytest
from helpers import answered, drawn, unsafe, until

from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Target
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.inside.inside import InsideScreen
from tui_llm.tui.instruments.inside.lens import LensTable
from tui_llm.tui.instruments.why.neurons import NeuronsScreen
from tui_llm.tui.instruments.why.why import WhyScreen
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


async def test_the_screens_of_its_parts_open(folders: tuple[Path, Path]) -> None:
    app = LabApp(lambda: PipelineEngine("cpu"), model=str(folders[0]), prompt="The cat [/] sat on")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "semicolon")
        await until(pilot, lambda: isinstance(app.screen, WhyScreen) and app.screen.why is not None)
        why = app.screen
        assert isinstance(why, WhyScreen) and why.why is not None and why.sum is not None
        assert why.why.logit == pytest.approx(why.why.computed, abs=1e-4)
        names = [line.name for line in why.sum.lines]
        assert "position embedding" not in names and "head 1.3" in names and not unsafe(drawn(app))
        for name, screen in (("head 1.3", InsideScreen), ("MLP 1", NeuronsScreen)):
            why.listing.cursor = names.index(name)
            await pilot.press("enter")
            await until(pilot, lambda screen=screen: isinstance(app.screen, screen))
            await until(pilot, lambda: any(word in "".join(drawn(app)) for word in ("(head 1.3)", "bias", "neuron 1")))
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is why)
        await pilot.press("escape", "A", "l")
        await until(pilot, lambda: isinstance(app.screen, InsideScreen) and app.screen.query_one(LensTable).lens)
        assert not unsafe(drawn(app))


async def test_a_model_whose_parts_are_not_known_says_so(tmp_path: Path) -> None:
    foreign.make("gemma2", tmp_path / "other")
    app = LabApp(lambda: PipelineEngine("cpu"), model=str(tmp_path / "other"), prompt="The cat")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        for key in ("semicolon", "A"):
            await pilot.press("escape", key)
            await until(pilot, lambda: "not known here" in " ".join(drawn(app)))
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.lab_screen)
