"""Comparing models whose vocabularies cut text by other rules, against transformers and `tokenizers`."""

from __future__ import annotations

import math
from pathlib import Path

import foreign
import pytest
import torch
from helpers import answered, drawn, unsafe, until

from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.instruments.compare_models.answer import DIFFERENT_TEMPLATES
from tui_llm.instruments.compare_models.question import CompareModelsQuestion
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.compare_models import CompareModelsScreen
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.widgets.prompt import PromptEditor

TEXT = "The cat sat on the mat"


def nano() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


@pytest.mark.parametrize("metaspace", [False, True])
@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("text", [TEXT, " " + TEXT])
def test_a_vocabulary_that_puts_a_space_in_front_is_compared_by_the_text(
    text: str, start: bool, metaspace: bool, tmp_path: Path
) -> None:
    tokenizer = foreign.sentence_piece(metaspace)
    reference = foreign.make("llama", tmp_path, tokenizer)
    engine = nano()
    request = Request(prompt=text, start_token=start)
    found = engine.answer(CompareModelsQuestion(request, (str(tmp_path),), rows=100, tokens=0))
    assert not found.problem

    cut = tokenizer.encode(text, add_special_tokens=start)
    logits = foreign.full_logits(reference, cut.ids)[:-1, : tokenizer.get_vocab_size()].double()
    costs = torch.nn.functional.cross_entropy(logits, torch.tensor(cut.ids[1:]), reduction="none") / math.log(2)
    theirs = [end for _, end in cut.offsets]  # in `text`, whatever the space in front is
    ours = [0] if start else []
    for id in engine.tokenizer.encode(text):
        ours.append((ours or [0])[-1] + len(engine.tokenizer.token_bytes(id)))
    # The pieces begin where both have read a token, of which the first has no loss.
    begin = min(end for end in {*ours} & {*theirs} if end >= max(ours[0], theirs[0]))
    assert found.bytes == len(text) - begin > 0
    wanted = sum(cost for cost, end in zip(costs.tolist(), theirs[1:], strict=True) if end > begin or start)
    assert found.bits[1] == pytest.approx(wanted, abs=1e-3)
    assert sum(piece.bytes for piece in found.most) == found.bytes
    assert all(piece.text in text for piece in found.most)


def test_a_templates_own_start_token_and_templates_that_differ(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
        foreign.make("llama", folder)
    foreign.chatty(folders[0])
    foreign.chatty(folders[1])
    foreign.chatty(folders[2], "{{ bos_token }}{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    engine = PipelineEngine("cpu")
    engine.open(str(folders[0]))
    for start in (False, True):  # the template has one already: it is not put in front twice
        request = Request(prompt=TEXT, chat=True, start_token=start)
        found = engine.answer(CompareModelsQuestion(request, (str(folders[1]),), tokens=0))
        assert not found.problem and found.bits[0] == found.bits[1] > 0
        assert found.bytes == len(engine.fed_text(request)) - len("<|begin|>")
        other = engine.answer(CompareModelsQuestion(request, (str(folders[2]),), tokens=0))
        assert other.problem == DIFFERENT_TEMPLATES and other.bytes == 0


async def test_the_screen_says_which_model_misses_the_start_token_it_expects(tmp_path: Path) -> None:
    foreign.make("llama", folder := tmp_path / "llama", foreign.sentence_piece())
    app = LabApp(nano, prompt=TEXT)
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "V")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        app.screen.query_one(PromptEditor).set_text(str(folder))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, CompareModelsScreen) and app.screen.found)
        await pilot.pause()
        lines = drawn(app)
        above = " ".join(" ".join(lines).split()).partition(" token raw p ")[0]  # the tables
        assert not unsafe(lines) and " A: " not in above and " B: untied head · " in above
        assert " · a space is put in front of the text · no <s> in front, which the model expects" in above
        await pilot.press("y")
        row = next(line for line in app.clipboard.splitlines() if line.startswith("choices\t"))
        assert "no <|endoftext|> in front" in row and "which the model expects" in row
