"""The tree's probabilities, against forward passes of transformers; at the context's limit, interrupted, sampled."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, RepetitionPenaltyLogitsProcessor

from tests.near_ties import are_likeliest
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.tree.question import BranchQuestion, KnownQuestion, SampleQuestion
from tui_llm.instruments.tree.tree import Growth, Tree
from tui_llm.llm.hub import lookup

SAMPLER = SamplerSettings(temperature=0.7, top_p=0.8)
TEXT = "Once upon a time, there was a"


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    folder: Path = lookup.find("nano").folder
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def grow(engine: PipelineEngine, request: Request, **bounds: float) -> tuple[Tree, Growth]:
    tree = Tree(request, engine.weights())
    growth = Growth(tree, tree.root, 3, 3, **bounds)  # type: ignore[arg-type]
    while not growth.done:
        growth.take(engine.answer(BranchQuestion(request, growth.batch(8), 3)))
    return tree, growth


def test_every_number_from_fresh_passes(engine: PipelineEngine, reference: torch.nn.Module) -> None:
    request = Request(prompt=TEXT, sampler=SAMPLER)
    tree, growth = grow(engine, request)
    assert len(tree) == 3 + 9 + 27 and not growth.full
    text = engine.ids(request)
    parents = [node for node in tree.nodes() if node.children]
    assert len(parents) == 13
    for parent in parents:
        with torch.no_grad():
            logits = reference(torch.tensor([text + list(parent.path)])).logits[0, -1, : engine.tokenizer.size].double()
        raw = logits.log_softmax(-1)
        assert are_likeliest([node.id for node in parent.children], logits)
        tempered, _ = (logits / 0.7).softmax(-1).sort(descending=True)
        kept = int((tempered.cumsum(0) - tempered < 0.8).sum())
        for place, node in enumerate(parent.children):
            assert node.log_probability == pytest.approx(float(raw[node.id]), abs=1e-4)
            assert node.drawn == pytest.approx(float(tempered[place] / tempered[:kept].sum()) if place < kept else 0, abs=1e-4)  # fmt: skip
            assert node.rank == place + 1
            way = torch.tensor([text + list(node.path)])
            with torch.no_grad():
                every = reference(way).logits[0, :, : engine.tokenizer.size].double().log_softmax(-1)
            total = sum(float(every[len(text) - 1 + i, id]) for i, id in enumerate(node.path))
            assert node.log_path == pytest.approx(total, abs=3e-4)
            assert node.path_probability == pytest.approx(math.exp(total), rel=1e-3)


def test_a_repetition_penalty_changes_drawn_p_not_which_tokens_are_likeliest(
    engine: PipelineEngine, reference: torch.nn.Module
) -> None:
    request = Request(prompt="The dog saw the dog and the", sampler=SamplerSettings(repetition_penalty=1.5))
    tree, _ = grow(engine, request)
    text = engine.ids(request)
    for parent in (node for node in tree.nodes() if node.children):
        ids = torch.tensor([text + list(parent.path)])
        with torch.no_grad():
            logits = reference(ids).logits[:, -1, : engine.tokenizer.size]
        assert are_likeliest([node.id for node in parent.children], logits[0])
        raw = logits[0].double().softmax(-1)
        penalised = RepetitionPenaltyLogitsProcessor(1.5)(ids, logits.clone())[0].double().softmax(-1)
        for node in parent.children:
            assert node.probability == pytest.approx(float(raw[node.id]), abs=1e-4)
            assert node.drawn == pytest.approx(float(penalised[node.id]), abs=1e-4)
    first = tree.root.children[0]
    assert first.token is not None and first.token.text == " dog" and first.rank == 1
    assert first.drawn < tree.root.children[1].drawn  # the penalised order is another one


def test_a_text_that_fills_the_context_slides_as_generation_does(engine: PipelineEngine) -> None:
    context = engine.weights().context
    ids = tuple((engine.ids(Request(prompt=TEXT)) * context)[: context - 1])
    request = Request(continuation=ids, sampler=SAMPLER)
    first = engine.answer(BranchQuestion(request, ((),), 2)).branchings[0].nexts[0].token.id
    deep = engine.answer(BranchQuestion(request, ((first,), (first, 5)), 2)).branchings
    for branching in deep:
        fresh = PipelineEngine("cpu")
        fresh.open("nano")
        wanted = fresh.read(Request(continuation=ids + branching.path, top=2)).distribution
        assert wanted is not None
        assert [n.token.id for n in branching.nexts] == [c.id for c in wanted.candidates]
        for found, candidate in zip(branching.nexts, wanted.candidates, strict=True):
            assert math.exp(found.log_probability) == pytest.approx(candidate.raw_probability, rel=1e-3)


def test_a_drawn_branch_is_what_generation_draws(engine: PipelineEngine) -> None:
    request = Request(prompt=TEXT, sampler=SAMPLER)
    steps = list(engine.generate(request, seed=4, count=6))
    drawn = engine.answer(SampleQuestion(request, (), 6, 4)).branchings
    assert [b.nexts[0].token.id for b in drawn] == [step.id for step in steps]
    assert [b.nexts[0].u for b in drawn] == [step.u for step in steps]
    assert [b.nexts[0].drawn for b in drawn] == pytest.approx([step.probability for step in steps], abs=1e-5)
    tail = engine.answer(SampleQuestion(request, tuple(step.id for step in steps[:3]), 3, 4)).branchings
    assert [b.nexts[0].token.id for b in tail] == [step.id for step in steps[3:]]
    greedy = engine.answer(SampleQuestion(Request(prompt=TEXT, sampler=SamplerSettings(temperature=0)), (), 2))
    assert all(b.nexts[0].u is None and b.nexts[0].rank == 1 for b in greedy.branchings)


def test_readings_go_on_as_before(engine: PipelineEngine) -> None:
    request = Request(prompt=TEXT)
    engine.read(request)
    forwards = engine.forwards
    engine.answer(BranchQuestion(request, ((5,), (5, 6), (7,)), 3))
    assert engine.read(Request(prompt=TEXT, sampler=SAMPLER)).forward_tokens == 0 and engine.forwards == forwards


def test_bounds(engine: PipelineEngine) -> None:
    request = Request(prompt=TEXT)
    tree, growth = grow(engine, request, least=0.03)
    assert not growth.full and all(node.path_probability >= 0.03 for node in tree.nodes())
    everything, _ = grow(engine, request)
    assert {n.path for n in tree.nodes()} == {n.path for n in everything.nodes() if n.path_probability >= 0.03}
    tree, growth = grow(engine, request, budget=10)
    assert growth.full and 8 <= len(tree) <= 10


def test_interrupted_and_invalid_questions(engine: PipelineEngine) -> None:
    request = Request(prompt="another " * 40)
    looks = iter([False, False, True])
    with pytest.raises(Overtaken):
        engine.answer(BranchQuestion(request, ((1,), (2,), (3,), (4,)), 3), lambda: next(looks))
    assert len(engine.answer(BranchQuestion(request, ((1,),), 3)).branchings[0].nexts) == 3
    with pytest.raises(UserError, match="nothing to continue"):
        engine.answer(BranchQuestion(Request(), ((),), 3))
    for question in (
        BranchQuestion(request, ((10**9,),)),
        SampleQuestion(request, (-1,)),
        KnownQuestion(request, (10**9,)),
    ):
        with pytest.raises(UserError, match="there is no token"):
            engine.answer(question)
    known = engine.answer(KnownQuestion(request, (5,)))
    assert known.text == tuple(engine.ids(request)) and known.tokens[0].id == 5
