"""Two models on one text, against torch's own KL divergence and cross-entropy; as an answer, a command and a screen."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Request, Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.compare_models.answer import NOTHING_SHARED, _pieces
from tui_llm.instruments.compare_models.question import CompareModelsQuestion, TextPiece
from tui_llm.instruments.compare_models.words import target_line
from tui_llm.instruments.pairs.question import PairsQuestion
from tui_llm.llm.hub import hub, lookup
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens.closed import ClosedTokenizer

TEXT = "Once upon a time there was a little café"
SAMPLER = SamplerSettings(temperature=0.8, top_p=0.9)


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano with other weights: the same vocabulary."""
    folder = tmp_path_factory.mktemp("models") / "noisy"
    shutil.copytree(lookup.find("nano").folder, folder)
    torch.manual_seed(0)
    stored = load_file(folder / "model.safetensors")
    changed = {name: one + 0.03 * torch.randn_like(one.float()).to(one.dtype) for name, one in stored.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of another vocabulary."""
    folder = tmp_path_factory.mktemp("models") / "characters"
    torch.manual_seed(1)
    vocabulary = ClosedTokenizer("characters", "char", sorted({*TEXT, *" girl"}))
    checkpoint.save(GPT(GPTConfig(vocabulary.size, context=64, layers=1, heads=2, width=16)), folder, end_of_text=None)
    hub.save_vocabulary(vocabulary, folder)
    return folder


def logits(model: str, text: str) -> tuple[torch.Tensor, list[int]]:
    engine = PipelineEngine("cpu")
    engine.open(model)
    ids = engine.tokenizer.encode(text)
    with torch.inference_mode():
        return engine.gpt(torch.tensor([ids]))[0].double()[:, : engine.tokenizer.size], ids


def test_kl_and_losses_are_torchs(engine: PipelineEngine, noisy: Path) -> None:
    request = Request(prompt=TEXT, sampler=SAMPLER, target=Target(text=" girl"))
    found = engine.answer(CompareModelsQuestion(request, (str(noisy),), seed=3, tokens=5))
    (one, ids), (two, same) = logits("nano", TEXT), logits(str(noisy), TEXT)
    assert ids == same
    log_p, log_q = one[-1].log_softmax(-1), two[-1].log_softmax(-1)

    def kl(log_q: torch.Tensor, log_p: torch.Tensor) -> float:
        divergence = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="sum")
        return float(divergence) / math.log(2)

    (divergence,) = found.divergences
    assert divergence.forward == pytest.approx(kl(log_q, log_p), abs=2e-3)
    assert divergence.reverse == pytest.approx(kl(log_p, log_q), abs=2e-3)
    apart = (log_p.exp() - log_q.exp()).abs()
    assert divergence.total_variation == pytest.approx(float(apart.sum()) / 2, abs=1e-3)
    for row, value in zip(found.differences, apart.topk(8).values.tolist(), strict=True):
        assert row.difference == pytest.approx(value, abs=1e-3)
        wanted = float(log_p[row.id].exp()), float(log_q[row.id].exp())
        assert row.raw_probabilities == pytest.approx(wanted, abs=1e-3)
    tops = {*log_p.topk(8).indices.tolist(), *log_q.topk(8).indices.tolist()}
    assert {row.id for row in found.candidates} == tops

    costs = [
        torch.nn.functional.cross_entropy(side[:-1], torch.tensor(ids[1:]), reduction="none") / math.log(2)
        for side in (one, two)
    ]
    assert found.bits[0] == pytest.approx(float(costs[0].sum()), abs=2e-3)
    assert found.bits[1] == pytest.approx(float(costs[1].sum()), abs=2e-3)
    assert found.bytes == len(TEXT.encode()) - len(engine.bytes_of(ids[0])) and not found.problem
    largest = (costs[0] - costs[1]).abs().topk(8).values.tolist()
    assert [abs(piece.bits[0] - piece.bits[1]) for piece in found.most] == pytest.approx(largest, abs=2e-3)
    for side, log in zip(found.models, (log_p, log_q), strict=True):
        loss = side.reading.loss
        assert loss is not None and side.target_bytes == len(" girl")
        assert loss.sum == pytest.approx(-float(log[engine.tokenizer.encode_after(" girl")[0]]), abs=2e-3)


def test_both_continuations_use_the_same_uniform_numbers(engine: PipelineEngine, noisy: Path) -> None:
    request = Request(prompt=TEXT, sampler=SAMPLER)
    found = engine.answer(CompareModelsQuestion(request, (str(noisy),), seed=3, tokens=6))
    pairs = zip(found.models[0].continuation, found.models[1].continuation, strict=False)
    assert all(one.u == two.u for one, two in pairs)
    alone = list(engine.generate(request, seed=3, count=6))
    assert [step.id for step in found.models[0].continuation] == [step.id for step in alone]
    other = PipelineEngine("cpu")
    other.open(str(noisy))
    assert [step.id for step in found.models[1].continuation] == [
        step.id for step in other.generate(request, seed=3, count=6)
    ]


def test_a_model_agrees_with_itself(engine: PipelineEngine) -> None:
    found = engine.answer(CompareModelsQuestion(Request(prompt=TEXT), ("nano",), tokens=4))
    divergence = found.divergence(0, 1)
    assert divergence is not None and divergence.forward == 0 == divergence.total_variation
    assert found.bits[0] == found.bits[1] and found.models[0].continuation == found.models[1].continuation


def test_other_vocabularies_are_compared_by_pieces_of_the_same_bytes(engine: PipelineEngine, characters: Path) -> None:
    """Each piece of a vocabulary of characters and nano's is one token of nano."""
    found = engine.answer(CompareModelsQuestion(Request(prompt=TEXT), (str(characters),), rows=100, tokens=2))
    assert not found.divergences and not found.candidates
    own = engine.answer(PairsQuestion(Request(prompt=TEXT)))
    assert own.mean is not None and sum(piece.bytes for piece in found.most) == found.bytes
    assert found.bits[0] == pytest.approx(own.mean * len(own.scores) / math.log(2), abs=1e-4)
    other = PipelineEngine("cpu")
    other.open(str(characters))
    scores = other.read(Request(prompt=TEXT, scores=True)).scores
    skipped = len(engine.tokenizer.decode(engine.tokenizer.encode(TEXT)[:1]))
    tail = [score.surprisal / math.log(2) for score in scores[skipped:] if score is not None]
    assert found.bits[1] == pytest.approx(sum(tail), abs=1e-4)


def _reading(engine: PipelineEngine, tokens: list[tuple[bytes, float | None]]) -> Reading:
    """A reading whose tokens and losses are given by hand, in nats."""
    whole = engine.read(Request(prompt="a b", scores=True))
    score = whole.scores[1]
    assert score is not None
    made = [dataclasses.replace(whole.tokens.tokens[0], bytes=text) for text, _ in tokens]
    scores = [
        None if cost is None else dataclasses.replace(score, loss=dataclasses.replace(score.loss, nats=cost))
        for _, cost in tokens
    ]
    return dataclasses.replace(
        whole, tokens=dataclasses.replace(whole.tokens, tokens=tuple(made)), scores=tuple(scores)
    )


def test_pieces_by_hand(engine: PipelineEngine) -> None:
    bit = math.log(2)
    one = _reading(engine, [(b"ab", None), (b"c", bit), (b"de", 2 * bit), (b"f", bit)])
    two = _reading(engine, [(b"a", None), (b"bc", bit), (b"d", bit), (b"e", 3 * bit), (b"f", 5 * bit)])
    # "abc" has a token without a loss in each; then "de", which is one token and two, and "f"
    fed = [b"abcdef"] * 2
    assert list(_pieces([one, two], fed)) == [TextPiece("de", 2, (2.0, 4.0)), TextPiece("f", 1, (1.0, 5.0))]
    with pytest.raises(ValueError):
        list(_pieces([one, _reading(engine, [(b"ab", None), (b"d", bit)])], fed))


def test_a_space_that_a_vocabulary_puts_in_front_is_no_text(engine: PipelineEngine) -> None:
    bit = math.log(2)
    whole = [TextPiece("a", 1, (1.0, 3.0)), TextPiece(" b", 2, (2.0, 1.0))]
    # The space is part of the first token, or a token of its own; its loss is counted.
    plain = _reading(engine, [(b"a", bit), (b" b", 2 * bit)])
    for front in ([(b" a", 3 * bit)], [(b" ", 2 * bit), (b"a", bit)]):
        assert list(_pieces([plain, _reading(engine, [*front, (b" b", bit)])], [b"a b"] * 2)) == whole
    # A space that was typed is text, beside the one in front and alone.
    typed = _reading(engine, [(b" a", bit), (b" b", 2 * bit)])
    for front in ([(b"  a", 3 * bit)], [(b" ", 2 * bit), (b" a", bit)], [(b" a", 3 * bit)]):
        made = list(_pieces([typed, _reading(engine, [*front, (b" b", bit)])], [b" a b"] * 2))
        assert made == [TextPiece(" a", 2, (1.0, 3.0)), whole[1]]


def test_generated_tokens_and_an_id_as_target_are_read_as_text(engine: PipelineEngine, characters: Path) -> None:
    ids = engine.tokenizer.encode(" there was")
    wanted = engine.tokenizer.encode_after(" girl")[0]
    request = Request(prompt="Once upon a time", continuation=tuple(ids), target=Target(id=wanted))
    found = engine.answer(CompareModelsQuestion(request, (str(characters),), tokens=1))
    assert found.models[1].reading.request.prompt == "Once upon a time there was"
    loss = found.models[1].reading.loss
    assert loss is not None and loss.text == " girl" and found.models[1].target_bytes == 5


def test_what_can_not_be_compared_is_said(engine: PipelineEngine, noisy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to predict from"):
        engine.answer(CompareModelsQuestion(Request(prompt=""), (str(noisy),)))
    found = engine.answer(CompareModelsQuestion(Request(prompt="a"), (str(noisy),), tokens=1))
    assert found.problem == NOTHING_SHARED and found.bytes == 0
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    before = engine.weights()
    for name in ("no-such-model", str(tmp_path / "broken")):
        with pytest.raises(UserError) as caught:
            engine.answer(CompareModelsQuestion(Request(prompt="a"), (name,)))
        assert "\n" not in str(caught.value)
    assert engine.weights() == before


def test_the_other_models_are_kept_until_the_screen_closes(engine: PipelineEngine, noisy: Path) -> None:
    engine.release()
    asked = CompareModelsQuestion(Request(prompt=TEXT), (str(noisy),), tokens=0)
    engine.answer(asked)
    kept = engine.screen_cache["compare_models"][str(noisy)]
    engine.answer(dataclasses.replace(asked, others=(str(noisy), "nano")))
    assert engine.screen_cache["compare_models"][str(noisy)] is kept
    engine.answer(dataclasses.replace(asked, others=("nano",)))
    assert list(engine.screen_cache["compare_models"]) == ["nano"]
    engine.release()
    assert not engine.screen_cache


def test_three_models_two_of_one_vocabulary(engine: PipelineEngine, noisy: Path, characters: Path) -> None:
    request = Request(prompt=TEXT, sampler=SAMPLER)
    found = engine.answer(CompareModelsQuestion(request, (str(characters), str(noisy)), seed=3, tokens=4))
    alone = engine.answer(CompareModelsQuestion(request, (str(noisy),), seed=3, tokens=4))
    assert [(one.first, one.second) for one in found.divergences] == [(0, 2)]
    assert found.divergences[0].forward == alone.divergences[0].forward > 0
    assert [(p[0], p[2]) for p in (row.raw_probabilities for row in found.differences)] == [
        row.raw_probabilities for row in alone.differences
    ]
    assert all(row.raw_probabilities[1] is None for row in (*found.candidates, *found.differences))
    assert len(found.bits) == 3 and found.models[2].continuation == alone.models[1].continuation
    for other in ((), ("nano",) * 3):
        with pytest.raises(UserError, match="give 1 to 2"):
            engine.answer(CompareModelsQuestion(request, other))


def test_a_weight_format_behind_a_name(engine: PipelineEngine, noisy: Path) -> None:
    found = engine.answer(CompareModelsQuestion(Request(prompt=TEXT), ("nano:int8", "nano:half"), tokens=0))
    assert [side.reading.weights.dtype for side in found.models] == ["fp32", "int8", "half"]
    # 16 bits change the prediction less than 8 do
    int8, half = found.divergence(0, 1), found.divergence(0, 2)
    assert int8 is not None and half is not None and 0 < half.forward < int8.forward < 0.1
    assert lookup.with_weights("nano:int8") == ("nano", "int8") and lookup.with_weights("run:int8") == (
        "run:int8",
        None,
    )
    odd = noisy.with_name("m:int8")
    odd.mkdir()
    assert lookup.with_weights(str(odd)) == (str(odd), None) and lookup.with_weights("nano:q4") == ("nano:q4", None)


def test_the_command(capsys: pytest.CaptureFixture[str], noisy: Path, characters: Path) -> None:
    words = ("compare-models", "nano", str(noisy), TEXT, "--max-tokens", "3", "--top", "4", "--target", " girl")
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "KL(A ‖ B) = " in out and "bits" in out and "raw p, A" in out and "loss of the target ·girl" in out
    assert main((*words, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["model"] for one in found["models"]] == ["nano", "noisy"] and found["kl"] > 0
    assert found["kl"] == pytest.approx(found["divergences"][0]["kl_p_q_bits"] * math.log(2))
    assert len(found["text"]["most"]) == 4 and 4 <= len(found["candidates"]) <= 8
    one, two = found["models"]
    assert [step["u"] for step in one["continuation"]] == [step["u"] for step in two["continuation"]]
    three = ("compare-models", "nano", str(characters), "nano:int8", TEXT, "--max-tokens", "0", "--json")
    assert main(three) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kl"] is None and found["divergences"][0]["q"] == "C"
    assert [one["weights"] for one in found["models"]] == ["fp32", "fp32", "int8"]
    assert main(("compare-models", "nano", str(characters), TEXT, "--max-tokens", "0")) == 0
    assert "vocabularies differ" in capsys.readouterr().out


def test_the_former_name_prints_what_it_printed(capsys: pytest.CaptureFixture[str], noisy: Path) -> None:
    words = ("versus", "nano", str(noisy), TEXT, "--max-tokens", "3", "--top", "4")
    assert main((*words, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first"]["model"] == "nano" and found["second"]["model"] == "noisy"
    assert len(found["text"]["most"]) == 4 and found["divergence"]["kl_bits_first_second"] > 0
    assert main(("versus", "nano", "no-such", TEXT)) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(("compare-models", "nano", "nano", TEXT, "--top", "0")) == 2


def test_the_likeliest_token_is_the_open_models_for_all(engine: PipelineEngine, noisy: Path) -> None:
    request = Request(prompt=TEXT, target=Target(likeliest=True))
    found = engine.answer(CompareModelsQuestion(request, (str(noisy),), tokens=0))
    (one, _), (two, _) = logits("nano", TEXT), logits(str(noisy), TEXT)
    best = int(one[-1].argmax())
    assert best != int(two[-1].argmax())
    for side, row in zip(found.models, (one[-1], two[-1]), strict=True):
        loss = side.reading.loss
        assert loss is not None and loss.text == engine.token(best).text
        assert loss.sum == pytest.approx(-float(row.log_softmax(-1)[best]), abs=2e-3)


def test_a_token_that_no_text_is_read_as_is_no_target(engine: PipelineEngine, noisy: Path) -> None:
    assert engine.tokenizer.start is not None
    request = Request(prompt=TEXT, target=Target(id=engine.tokenizer.start))
    found = engine.answer(CompareModelsQuestion(request, (str(noisy),), tokens=0))
    assert [side.reading.loss for side in found.models] == [None, None] and not target_line(found)
