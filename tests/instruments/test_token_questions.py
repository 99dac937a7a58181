"""Pairs, swaps, vocabularies side by side, score and rank of the following token, on the shipped model."""

from __future__ import annotations

import json
import math
from importlib import metadata
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.near_ties import possible_ranks
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import LAYER, Intervention, ModelPart
from tui_llm.facts.request import Request
from tui_llm.instruments.merges.question import MergesQuestion
from tui_llm.instruments.pairs.question import PairsQuestion
from tui_llm.instruments.swap.question import PlaceQuestion, SwapQuestion
from tui_llm.instruments.vocabularies.question import VocabulariesQuestion
from tui_llm.llm.tokens import catalog

TEXT = "Once upon a time there was a €"


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


def test_pairs_have_torchs_cross_entropy(engine: PipelineEngine) -> None:
    pairs = engine.answer(PairsQuestion(Request(prompt=TEXT, position=2, tokenizer="char")))
    ids = torch.tensor(engine.tokenizer.encode(TEXT))
    with torch.inference_mode():
        logits = engine.gpt(ids[None])[0].float()[:, : engine.tokenizer.size]
    losses = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none").tolist()
    assert [score.surprisal for score in pairs.scores] == pytest.approx(losses, abs=1e-3)
    assert pairs.mean == pytest.approx(sum(losses) / len(losses), abs=1e-4)
    assert [token.id for token in pairs.tokens] == ids.tolist()
    assert not engine.answer(PairsQuestion(Request(prompt="a"))).scores


def test_the_reading_at_a_position(engine: PipelineEngine) -> None:
    ids = engine.tokenizer.encode(TEXT)
    with torch.inference_mode():
        logits = engine.gpt(torch.tensor([ids]))[0].float()[:, : engine.tokenizer.size]
    whole = engine.read(Request(prompt=TEXT, scores=True))
    assert whole.span is None and whole.following_score is None
    for position in range(len(ids)):
        reading = engine.read(Request(prompt=TEXT, position=position))
        assert reading.span is not None
        one, score = reading.following_score, whole.scores[position]
        if position == 0:
            assert one is None and score is None
            continue
        assert one is not None and score is not None
        assert one.surprisal == pytest.approx(score.surprisal, abs=1e-4)
        assert one.entropy == pytest.approx(score.entropy, abs=1e-4)
        assert one.probability == pytest.approx(score.probability, abs=1e-5)
        assert one.rank in possible_ranks(logits[position - 1], ids[position])
        assert score.rank in possible_ranks(logits[position - 1], ids[position])


@given(st.text(max_size=20) | st.text("the cat é漢👩\n", max_size=30), st.booleans())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_span_holds_the_tokens_characters(engine: PipelineEngine, text: str, start: bool) -> None:
    from tui_llm.session.tokenization import span

    ids = ([engine.tokenizer.end_of_text] if start else []) + engine.tokenizer.encode(text)
    last = 0
    for index, id in enumerate(ids):
        found = span(engine.tokenizer, ids, index, int(start), 0, text)  # type: ignore[arg-type]
        if start and index == 0:
            assert found is None
            continue
        assert found is not None
        begin, end = found
        assert engine.tokenizer.token_bytes(id) in text[begin:end].encode()  # type: ignore[arg-type]
        assert begin in (last, last - 1) and begin < end  # one character earlier if a character is split
        last = end
    assert last == len(text)


@given(st.text(min_size=1, max_size=20) | st.text("the cat é漢👩\n", min_size=1, max_size=30), st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_swap_keeps_every_other_id(engine: PipelineEngine, text: str, data: st.DataObject) -> None:
    ids = engine.tokenizer.encode(text)
    typed = data.draw(st.integers(1, len(ids)))
    prompt_ids, rest = ids[:typed], tuple(ids[typed:])
    try:
        prompt = engine.tokenizer.decode_bytes(prompt_ids).decode()
    except UnicodeDecodeError:
        return
    if engine.tokenizer.encode(prompt) != prompt_ids:
        return
    at, id = data.draw(st.integers(0, len(ids) - 1)), data.draw(st.integers(0, engine.tokenizer.size - 1))
    request = Request(prompt=prompt, continuation=rest, position=at)
    for keep in (True, False):
        swapped = engine.answer(SwapQuestion(request, id=id, keep=keep))
        after = engine.ids(Request(prompt=swapped.prompt, continuation=tuple(step.id for step in swapped.steps)))
        assert after == [*ids[:at], id, *(ids[at + 1 :] if keep else [])]
        assert swapped.dropped == (0 if keep else len(ids) - at - 1)
        assert "".join(step.text for step in swapped.steps) in engine.tokenizer.decode(
            after
        ) or "\ufffd" in engine.tokenizer.decode(after)


def test_a_swapped_text_has_the_models_numbers(engine: PipelineEngine) -> None:
    swapped = engine.answer(SwapQuestion(Request(prompt="The cat sat on the mat", position=1), text=" little dog"))
    assert swapped.prompt == "The" and [step.text for step in swapped.steps][:2] == [" little", " dog"]
    whole = engine.read(Request(prompt="The little dog sat on the mat", scores=True))
    got = [step.probability for step in swapped.steps]
    assert got == pytest.approx([score.probability for score in whole.scores[1:] if score], abs=1e-5)
    off = (Intervention(ModelPart(LAYER, 1)),)
    changed = engine.answer(SwapQuestion(Request(prompt="The cat sat", position=1, interventions=off), text=" dog"))
    assert all(step.interventions == off for step in changed.steps)
    first = engine.answer(SwapQuestion(Request(prompt="The cat", position=0), text="A"))
    assert math.isnan(first.steps[0].probability)  # the first token is not predicted


def test_invalid_swaps_are_refused(engine: PipelineEngine) -> None:
    for request in (Request(prompt="The cat"), Request(prompt="The cat", position=9), Request(prompt="", position=0)):
        with pytest.raises(UserError, match="token cursor"):
            engine.answer(SwapQuestion(request, id=5))
    with pytest.raises(UserError, match="token cursor"):  # the start token is not part of the text
        engine.answer(SwapQuestion(Request(prompt="The cat", position=0, start_token=True), id=5))
    with pytest.raises(UserError, match="there is no token"):
        engine.answer(SwapQuestion(Request(prompt="The cat", position=1), id=99999))
    with pytest.raises(UserError, match="leading space"):
        engine.answer(SwapQuestion(Request(prompt="The cat", position=1), text=""))
    place = engine.answer(PlaceQuestion(Request(prompt="The cat", position=1, tokenizer="char")))
    assert place.following is not None and place.following.text == " cat" and place.distribution is not None


def test_the_word_at_the_cursor(engine: PipelineEngine) -> None:
    request = Request(prompt="a strawberry pie", position=2)
    found = engine.answer(MergesQuestion(request))
    assert [word.text for word in found.words] == [" strawberry"] and found.count == 3
    assert engine.answer(MergesQuestion(Request(prompt="a strawberry pie"))).words[0].text == " pie"
    assert engine.answer(MergesQuestion(Request(prompt="a pie", position=1, start_token=True))).words[0].text == "a"
    assert not engine.answer(MergesQuestion(Request())).words
    with pytest.raises(UserError, match="no list of merges"):
        engine.answer(MergesQuestion(request, tokenizer="char"))


def test_vocabularies_side_by_side(engine: PipelineEngine) -> None:
    text = "a € Zyxw [/]\x1b"
    found = engine.answer(VocabulariesQuestion(Request(prompt=text)))
    sides = {side.name: side for side in found.sides}
    assert [*sides] == ["word", "char", "byte", "nano", "gpt2", "cl100k_base", "o200k_base"]
    assert sides["char"].count == len(text) == found.characters
    assert sides["byte"].count == len(text.encode()) == found.bytes
    assert sides["nano"].own and sides["nano"].count == len(engine.tokenizer.encode(text))
    assert sides["byte"].characters_per_token == pytest.approx(len(text) / len(text.encode()))
    assert [(sides[name].size, sides[name].problem) for name in catalog.NAMED] == [
        (50257, ""),
        (100277, ""),
        (200019, ""),
    ]
    assert not found.words.trained and "Zyxw" in found.words.missing and "a" not in found.words.missing


def test_without_the_packages_a_line_says_how_to_get_a_vocabulary(
    engine: PipelineEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", gone)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    sides = {side.name: side for side in engine.answer(VocabulariesQuestion(Request(prompt="a"))).sides}
    for name in catalog.NAMED:  # nothing is downloaded without a request
        assert "not on this machine" in sides[name].problem and "vocabulary add" in sides[name].problem
        assert sides[name].tokens is None


def test_words_of_the_text_that_a_run_learned_from(engine: PipelineEngine, tmp_path: Path) -> None:
    from tui_llm.instruments.vocabularies.answer import compare

    (tmp_path / "corpus.txt").write_text("the cat sat")
    run = paths.runs_dir() / "tales"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"corpus": [str(tmp_path / "corpus.txt")]}))
    words = compare("the dog sat", engine.tokenizer, [1], "tales", {}, lambda: False).words
    assert (
        words.trained and words.size == 3 and words.missing == ("dog",) and (words.missing_count, words.count) == (1, 3)
    )
    (tmp_path / "corpus.txt").unlink()
    assert not compare("the dog", engine.tokenizer, [1], "tales", {}, lambda: False).words.trained


def test_a_damaged_model_is_one_line() -> None:
    damaged = PipelineEngine("cpu")
    damaged.open("nano")
    damaged.gpt.blocks[1].mlp.down.bias[0] = math.nan
    request = Request(prompt="The cat sat", position=1)
    for question in (SwapQuestion(request, text=" dog"), PairsQuestion(request)):
        with pytest.raises(UserError, match="NaN"):
            damaged.answer(question)
    assert damaged.answer(PairsQuestion(Request())).mean is None
