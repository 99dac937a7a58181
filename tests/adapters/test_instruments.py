"""Instruments on a model that runs through transformers: the same answers if possible, else one line of error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import foreign
import pytest
import torch

from tests.near_ties import possible_ranks
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.recipe import Recipe
from tui_llm.facts.request import Request, Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.draws.question import DrawQuestion
from tui_llm.instruments.ghost.question import GhostQuestion
from tui_llm.instruments.learn.question import LearnQuestion
from tui_llm.instruments.merges.question import MergesQuestion
from tui_llm.instruments.swap.question import SwapQuestion
from tui_llm.instruments.tree.question import BranchQuestion, KnownQuestion, SampleQuestion
from tui_llm.instruments.tree.tree import Growth, Tree
from tui_llm.instruments.tree.tree_file import load, save
from tui_llm.instruments.vocabularies.question import VocabulariesQuestion
from tui_llm.tui.state.lab import Lab

TEXT = "The cat sat on the"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[PipelineEngine, Any]:
    folder = tmp_path_factory.mktemp("models") / "llama"
    reference = foreign.make("llama", folder, foreign.sentence_piece())
    foreign.chatty(folder)
    engine = PipelineEngine("cpu")
    engine.open(str(folder))
    return engine, reference


def test_a_tree_is_full_passes(opened: tuple[PipelineEngine, Any]) -> None:
    engine, reference = opened
    request, ids = Request(prompt=TEXT), engine.tokenizer.encode(TEXT)
    engine.read(request)
    before = engine.forward_tokens
    paths = ((), (5,), (5, 6), (5, 7), (9,))
    found = engine.answer(BranchQuestion(request, paths, 4))
    assert found.run == engine.forward_tokens - before == 4, "what the paths share is run once"
    for branching in found.branchings:
        logits = foreign.full_logits(reference, [*ids, *branching.path])[-1, : engine.tokenizer.size]
        for row in branching.nexts:
            assert row.log_probability == pytest.approx(float(torch.log_softmax(logits, -1)[row.token.id]), abs=1e-4)
            assert row.rank in possible_ranks(logits, row.token.id)
    long = Request(prompt="another cat " * 30)  # more than the context
    assert len(engine.answer(BranchQuestion(long, ((1,),), 3)).branchings[0].nexts) == 3


def test_only_the_tokens_that_stop_generation_end_a_text_in_the_tree(tmp_path: Path) -> None:
    reference = foreign.make("llama", tmp_path, foreign.byte_level())
    foreign.chatty(tmp_path)
    engine = PipelineEngine("cpu")
    engine.open(str(tmp_path))
    special = {
        token.content: id for id, token in foreign.byte_level().get_added_tokens_decoder().items() if token.special
    }
    stops = {reference.generation_config.eos_token_id, special["<|im_end|>"]}  # as generate() of transformers
    request = Request(prompt=TEXT)
    nexts = engine.answer(BranchQuestion(request, ((),), engine.tokenizer.size)).branchings[0].nexts
    assert {one.token.id for one in nexts if one.ends} == stops < set(special.values())
    assert {one.token.id for one in nexts if one.token.special} == set(special.values())
    assert engine.answer(KnownQuestion(request, tuple(special.values()))).ends == stops
    tree = Tree(request, engine.weights())
    for one in nexts:
        if one.token.special:
            tree.add(tree.root, one)
    tree.root.expanded = len(nexts)
    growth = Growth(tree, tree.root, len(nexts), 2)
    assert {path[0] for path in growth.batch()} == set(special.values()) - stops


def test_draws_and_ghost_text_equal_generation(opened: tuple[PipelineEngine, Any]) -> None:
    engine, _ = opened
    request = Request(prompt=TEXT, sampler=SamplerSettings(temperature=1.2, top_p=0.9))
    steps = list(engine.generate(request, seed=4, count=5, stop_at_end=False))
    drawn = engine.answer(SampleQuestion(request, (), 5, 4)).branchings
    assert [b.nexts[0].token.id for b in drawn] == [step.id for step in steps][: len(drawn)]
    one = engine.answer(DrawQuestion(request, (request.sampler,), None, 4))
    assert one.landings[0].hit.candidate.id == steps[0].id
    greedy = Request(prompt=TEXT, sampler=SamplerSettings(temperature=0))
    text = "".join(step.text for step in engine.generate(greedy, seed=1, count=4))
    assert text.startswith("".join(engine.answer(GhostQuestion(greedy, count=4)).pieces))


def test_unsupported_instruments_are_reported(opened: tuple[PipelineEngine, Any]) -> None:
    engine, _ = opened
    learn = LearnQuestion(Request(prompt=TEXT, target=Target(text=" mat")), 1, Recipe("sgd", 0.1))
    with pytest.raises(UserError, match="runs through transformers"):
        engine.answer(learn)
    with pytest.raises(UserError, match="no list of merges"):
        engine.answer(MergesQuestion(Request(prompt=TEXT)))


def test_words_of_a_chat_are_those_of_the_message(opened: tuple[PipelineEngine, Any]) -> None:
    engine, _ = opened
    plain, chat = Request(prompt=TEXT), Request(prompt=TEXT, chat=True, start_token=True)
    sides = [engine.answer(VocabulariesQuestion(request)).sides for request in (plain, chat)]
    assert [side.count for side in sides[0]] == [side.count for side in sides[1]]
    assert engine.read(chat).prompt_ids != engine.read(plain).prompt_ids
    assert engine.read(Request(prompt=TEXT, chat=True, position=3)).span is None


def test_a_swap(opened: tuple[PipelineEngine, Any]) -> None:
    engine, _ = opened
    steps = [step.id for step in engine.generate(Request(prompt=TEXT, chat=True), seed=2, count=3, stop_at_end=False)]
    chat = Request(prompt=TEXT, chat=True, continuation=tuple(steps))
    count = len(engine.ids(chat))
    with pytest.raises(UserError, match="chat template"):
        engine.answer(SwapQuestion(Request(prompt=TEXT, chat=True, continuation=tuple(steps), position=2), id=7))
    at = Request(prompt=TEXT, chat=True, continuation=tuple(steps), position=count - 2)
    found = engine.answer(SwapQuestion(at, id=7, keep=True))
    assert found.prompt == TEXT and [step.id for step in found.steps] == [steps[0], 7, steps[2]]
    # No prefix space is added to a word that follows others.
    tokens = engine.read(Request(prompt=TEXT)).tokens.tokens
    place = next(number for number, token in enumerate(tokens) if b"c" in token.bytes)
    typed = engine.answer(SwapQuestion(Request(prompt=TEXT, position=place), text="dog", keep=False))
    assert typed.prompt.strip() == "The", "what stands before it stays typed text"
    assert not b"".join(step.bytes for step in typed.steps).startswith(b" d" if typed.prompt.endswith(" ") else b"  ")


def test_the_cursor_what_if_and_tree_files_keep_the_template(
    opened: tuple[PipelineEngine, Any], tmp_path: Path
) -> None:
    """The token cursor and changed logits refer to the text with the template; a tree's file records the template."""
    lab = Lab(TEXT)
    lab.place(2)
    lab.chat = True
    assert lab.position is None and lab.current_request().chat and lab.before_step(0).chat
    tree = Tree(Request(prompt=TEXT, chat=True), opened[0].weights())
    save(tree, tmp_path / "tree.json")
    assert load(tmp_path / "tree.json").request.chat
