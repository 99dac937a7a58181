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
from tui_llm.instruments.pairs.question import PairsQuestion
from tui_llm.instruments.versus.answer import NOTHING_SHARED, _pieces
from tui_llm.instruments.versus.question import TextPiece, VersusQuestion
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
    found = engine.answer(VersusQuestion(request, str(noisy), seed=3, tokens=5))
    (one, ids), (two, same) = logits("nano", TEXT), logits(str(noisy), TEXT)
    assert ids == same
    log_p, log_q = one[-1].log_softmax(-1), two[-1].log_softmax(-1)

    def kl(log_q: torch.Tensor, log_p: torch.Tensor) -> float:
        divergence = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="sum")
        return float(divergence) / math.log(2)

    assert found.divergence is not None
    assert found.divergence.forward == pytest.approx(kl(log_q, log_p), abs=2e-3)
    assert found.divergence.reverse == pytest.approx(kl(log_p, log_q), abs=2e-3)
    apart = (log_p.exp() - log_q.exp()).abs()
    assert found.divergence.total_variation == pytest.approx(float(apart.sum()) / 2, abs=1e-3)
    for row, value in zip(found.divergence.most, apart.topk(8).values.tolist(), strict=True):
        assert abs(row.first - row.second) == pytest.approx(value, abs=1e-3)
        assert row.first == pytest.approx(float(log_p[row.id].exp()), abs=1e-3)

    costs = [
        torch.nn.functional.cross_entropy(side[:-1], torch.tensor(ids[1:]), reduction="none") / math.log(2)
        for side in (one, two)
    ]
    assert found.first_bits == pytest.approx(float(costs[0].sum()), abs=2e-3)
    assert found.second_bits == pytest.approx(float(costs[1].sum()), abs=2e-3)
    assert found.bytes == len(TEXT.encode()) - len(engine.bytes_of(ids[0])) and not found.problem
    largest = (costs[0] - costs[1]).abs().topk(8).values.tolist()
    assert [abs(piece.first - piece.second) for piece in found.most] == pytest.approx(largest, abs=2e-3)
    for side, log in ((found.first, log_p), (found.second, log_q)):
        loss = side.reading.loss
        assert loss is not None and side.target_bytes == len(" girl")
        assert loss.sum == pytest.approx(-float(log[engine.tokenizer.encode_after(" girl")[0]]), abs=2e-3)


def test_both_continuations_use_the_same_uniform_numbers(engine: PipelineEngine, noisy: Path) -> None:
    request = Request(prompt=TEXT, sampler=SAMPLER)
    found = engine.answer(VersusQuestion(request, str(noisy), seed=3, tokens=6))
    pairs = zip(found.first.continuation, found.second.continuation, strict=False)
    assert all(one.u == two.u for one, two in pairs)
    alone = list(engine.generate(request, seed=3, count=6))
    assert [step.id for step in found.first.continuation] == [step.id for step in alone]
    other = PipelineEngine("cpu")
    other.open(str(noisy))
    assert [step.id for step in found.second.continuation] == [
        step.id for step in other.generate(request, seed=3, count=6)
    ]


def test_a_model_agrees_with_itself(engine: PipelineEngine) -> None:
    found = engine.answer(VersusQuestion(Request(prompt=TEXT), "nano", tokens=4))
    assert found.divergence is not None and found.divergence.forward == 0 == found.divergence.total_variation
    assert found.first_bits == found.second_bits and found.first.continuation == found.second.continuation


def test_other_vocabularies_are_compared_by_pieces_of_the_same_bytes(engine: PipelineEngine, characters: Path) -> None:
    """Each piece of a vocabulary of characters and nano's is one token of nano."""
    found = engine.answer(VersusQuestion(Request(prompt=TEXT), str(characters), rows=100, tokens=2))
    assert found.divergence is None
    own = engine.answer(PairsQuestion(Request(prompt=TEXT)))
    assert own.mean is not None and sum(piece.bytes for piece in found.most) == found.bytes
    assert found.first_bits == pytest.approx(own.mean * len(own.scores) / math.log(2), abs=1e-4)
    other = PipelineEngine("cpu")
    other.open(str(characters))
    scores = other.read(Request(prompt=TEXT, scores=True)).scores
    skipped = len(engine.tokenizer.decode(engine.tokenizer.encode(TEXT)[:1]))
    tail = [score.surprisal / math.log(2) for score in scores[skipped:] if score is not None]
    assert found.second_bits == pytest.approx(sum(tail), abs=1e-4)


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
    assert list(_pieces(one, two)) == [TextPiece("de", 2, 2.0, 4.0), TextPiece("f", 1, 1.0, 5.0)]
    with pytest.raises(ValueError):
        list(_pieces(one, _reading(engine, [(b"ab", None), (b"d", bit)])))


def test_generated_tokens_and_an_id_as_target_are_read_as_text(engine: PipelineEngine, characters: Path) -> None:
    ids = engine.tokenizer.encode(" there was")
    wanted = engine.tokenizer.encode_after(" girl")[0]
    request = Request(prompt="Once upon a time", continuation=tuple(ids), target=Target(id=wanted))
    found = engine.answer(VersusQuestion(request, str(characters), tokens=1))
    assert found.second.reading.request.prompt == "Once upon a time there was"
    loss = found.second.reading.loss
    assert loss is not None and loss.text == " girl" and found.second.target_bytes == 5


def test_what_can_not_be_compared_is_said(engine: PipelineEngine, noisy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to predict from"):
        engine.answer(VersusQuestion(Request(prompt=""), str(noisy)))
    found = engine.answer(VersusQuestion(Request(prompt="a"), str(noisy), tokens=1))
    assert found.problem == NOTHING_SHARED and found.bytes == 0
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    before = engine.weights()
    for name in ("no-such-model", str(tmp_path / "broken")):
        with pytest.raises(UserError) as caught:
            engine.answer(VersusQuestion(Request(prompt="a"), name))
        assert "\n" not in str(caught.value)
    assert engine.weights() == before


def test_one_other_model_is_kept_until_the_screen_closes(engine: PipelineEngine, noisy: Path) -> None:
    engine.release()
    asked = VersusQuestion(Request(prompt=TEXT), str(noisy), tokens=0)
    engine.answer(asked)
    kept = engine.screen_cache["versus"]
    engine.answer(asked)
    assert engine.screen_cache["versus"] is kept
    engine.answer(dataclasses.replace(asked, other="nano"))
    assert engine.screen_cache["versus"][0] == "nano" and len(engine.screen_cache) == 1
    engine.release()
    assert not engine.screen_cache


def test_the_command(capsys: pytest.CaptureFixture[str], noisy: Path, characters: Path) -> None:
    words = ("versus", "nano", str(noisy), TEXT, "--max-tokens", "3", "--top", "4", "--target", " girl")
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "KL(A ‖ B) = " in out and "bits" in out and "raw p, A" in out and "loss of the target ·girl" in out
    assert main((*words, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first"]["model"] == "nano" and found["second"]["model"] == "noisy"
    assert len(found["text"]["most"]) == 4 and found["divergence"]["kl_bits_first_second"] > 0
    assert [step["u"] for step in found["first"]["continuation"]] == [
        step["u"] for step in found["second"]["continuation"]
    ]
    assert main(("versus", "nano", str(characters), TEXT, "--json", "--max-tokens", "0")) == 0
    assert json.loads(capsys.readouterr().out)["divergence"] is None
    assert main(("versus", "nano", "no-such", TEXT)) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(("versus", "nano", "nano", TEXT, "--top", "0")) == 2
