"""Models of other architectures, against transformers' full forward pass."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Request, Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.attention.question import AttentionQuestion
from tui_llm.instruments.neighbours.question import NeighboursQuestion
from tui_llm.llm.adapters.parts import PATHS

KINDS = ("llama", "qwen2", "gpt_neox", "gemma2", "gpt2", "cohere", "mamba")  # mamba's state can't be cropped


@pytest.fixture(scope="module", params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PipelineEngine, Any]:
    folder = tmp_path_factory.mktemp("models") / request.param
    reference = foreign.make(request.param, folder)
    engine = PipelineEngine("cpu")
    engine.open(str(folder))
    return engine, reference


def same(reading: Reading, reference: Any, size: int) -> None:
    """Checks that the reading's logits are those of a full pass over its window."""
    window = list(reading.prompt_ids)[-reading.weights.context :]
    at = reading.position - (len(reading.prompt_ids) - len(window))
    wanted = foreign.full_logits(reference, window)[at - 1, :size]
    assert reading.distribution is not None
    got = torch.empty(size)
    for row in reading.distribution.candidates:
        got[row.id] = row.logit
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def test_readings_equal_a_full_pass_however_the_prompt_is_edited(opened: tuple[PipelineEngine, Any]) -> None:
    engine, reference = opened
    size, draw, text = engine.tokenizer.size, random.Random(3), "The cat sat on the"
    for _ in range(6):
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice([" dog", "é", "", "  ", " mat and"]) + text[at + draw.randrange(3) :]
        reading = engine.read(Request(prompt=text, top=size))
        same(reading, reference, size)
    position = len(reading.prompt_ids) // 2
    same(engine.read(Request(prompt=text, top=size, position=position)), reference, size)
    assert engine.weights().parameters == sum(p.numel() for p in reference.parameters())


def test_only_new_tokens_are_run(opened: tuple[PipelineEngine, Any]) -> None:
    engine, reference = opened
    engine.read(Request(prompt="Once upon a time"))
    longer = engine.read(Request(prompt="Once upon a time there", top=engine.tokenizer.size))
    assert longer.forward_tokens < len(longer.prompt_ids)
    same(longer, reference, engine.tokenizer.size)


def test_losses_and_scores_are_cross_entropy(opened: tuple[PipelineEngine, Any]) -> None:
    engine, reference = opened
    size = engine.tokenizer.size
    reading = engine.read(Request(prompt="The cat sat", target=Target(text=" on the mat"), scores=True))
    assert reading.loss is not None and not reading.loss.problem
    wanted = [token.token.id for token in reading.loss.tokens]
    ids = [*reading.prompt_ids, *wanted]
    losses = torch.nn.functional.cross_entropy(
        foreign.full_logits(reference, ids)[:-1, :size], torch.tensor(ids[1:]), reduction="none"
    ).tolist()
    assert [token.loss.nats for token in reading.loss.tokens] == pytest.approx(losses[-len(wanted) :], abs=1e-4)
    scores = [score.surprisal for score in reading.scores if score is not None]
    assert scores == pytest.approx(losses[: len(scores)], abs=1e-4)


def test_generation_is_a_greedy_full_pass_and_slides_past_the_context(opened: tuple[PipelineEngine, Any]) -> None:
    engine, reference = opened
    size = engine.tokenizer.size
    text = "The cat sat on the mat. " * 6
    request = Request(prompt=text, sampler=SamplerSettings(temperature=0))
    ids, made = engine.ids(request), []
    for token in engine.generate(request, seed=1, count=4, stop_at_end=False):
        wanted = foreign.full_logits(reference, [*ids, *made][-engine.weights().context :])[-1, :size]
        assert float(wanted.max() - wanted[token.id]) < 1e-4
        made.append(token.id)
    assert len(ids) + len(made) > foreign.CONTEXT


def test_unsupported_answers_are_reported(opened: tuple[PipelineEngine, Any]) -> None:
    engine, reference = opened
    request = Request(prompt="The cat")
    found = engine.answer(NeighboursQuestion(request, id=5))
    table = reference.get_input_embeddings().weight.detach()[: engine.tokenizer.size]
    assert found.width == table.shape[1]
    assert found.norm == pytest.approx(float(table[5].norm()), rel=1e-5)
    if engine.weights().kind in ("gpt2", *PATHS):
        assert engine.answer(AttentionQuestion(request, None)).heads
        return
    with pytest.raises(UserError, match=r"the parts of a '.*' model are not known here"):
        engine.answer(AttentionQuestion(request, None))


def test_a_model_that_is_not_causal_is_refused(tmp_path: Path) -> None:
    foreign.make("bert", tmp_path / "bert")
    with pytest.raises(UserError, match="not a causal language model"):
        PipelineEngine("cpu").open(str(tmp_path / "bert"))


def test_an_encoder_decoder_is_refused_in_a_short_line(tmp_path: Path) -> None:
    """transformers 5.24 answers with a list of every kind of model that it has."""
    shape = T5Config(vocab_size=100, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(shape).save_pretrained(tmp_path / "t5")
    with pytest.raises(UserError, match="t5 is not a causal language model") as refused:
        PipelineEngine("cpu").open(str(tmp_path / "t5"))
    assert len(str(refused.value).replace(str(tmp_path), "")) < 160
