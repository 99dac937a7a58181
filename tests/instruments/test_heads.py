"""The head detectors as a question, as a command and in Python: random tokens, a text, other models, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.adapters.foreign import CONTEXT, SHAPE, byte_level
from tests.byte_models import save_byte_model
from tui_llm.api import open_model
from tui_llm.cli import main
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.head_scores import SCORES, best
from tui_llm.facts.interventions import HEAD, KEY, MLP, PATCH, RESIDUAL, Intervention, ModelPart
from tui_llm.facts.request import Request
from tui_llm.instruments.heads.question import HeadsQuestion
from tui_llm.llm.model import checkpoint, head_scores
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens.closed import ClosedTokenizer
from tui_llm.llm.tokens.text import END_OF_TEXT

REPEATED = "Tom had a dog named Rex. Tom and his dog named"


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    engine = PipelineEngine("cpu")
    engine.open("nano")
    return engine


def test_the_answer_is_the_scores_of_the_stated_tokens(engine: PipelineEngine) -> None:
    found = engine.answer(HeadsQuestion(Request(), seed=3, length=10))
    assert (found.length, found.sequences, found.counts.tokens, found.counts.induction) == (10, 4, 84, 40)
    assert found.start is not None and found.start.special
    ids = head_scores.ordinary(engine.tokenizer.size, engine.tokenizer.is_special)
    texts = [head_scores.repeated(ids, 10, 3 * 4 + nth, found.start.id) for nth in range(4)]
    assert found.heads == head_scores.score(engine.gpt, texts).scores()
    assert found == engine.answer(HeadsQuestion(Request(), seed=3, length=10))
    assert found.heads != engine.answer(HeadsQuestion(Request(), seed=4, length=10)).heads


def test_on_the_text(engine: PipelineEngine) -> None:
    request = Request(prompt=REPEATED)
    found = engine.answer(HeadsQuestion(request, own_text=True))
    assert found.heads == head_scores.score(engine.gpt, [engine.ids(request)]).scores() and found.length == 0
    top = best(found.heads, "induction")
    assert top is not None and (top.induction or 0) > 0.3
    plain = engine.answer(HeadsQuestion(Request(prompt="The cat sat"), own_text=True))
    assert all(one.induction is None and one.previous is not None for one in plain.heads)
    for prompt, why in (("", "no token"), ("The", "one token")):
        with pytest.raises(UserError, match=why):
            engine.answer(HeadsQuestion(Request(prompt=prompt), own_text=True))


def test_a_change_of_a_token_of_the_text_is_none_of_random_tokens(engine: PipelineEngine) -> None:
    ids = tuple(engine.ids(Request(prompt=REPEATED)))
    off = Intervention(ModelPart(HEAD, 3, 2))
    of_tokens = (
        Intervention(ModelPart(KEY, 3)),
        Intervention(ModelPart(RESIDUAL, 2), PATCH, ids, at=3),
        Intervention(ModelPart(MLP, 1), at=4),
    )
    plain, changed = (
        engine.answer(HeadsQuestion(Request(prompt=REPEATED, interventions=on), length=10))
        for on in ((off,), (*of_tokens, off))
    )
    assert plain.left_out == () and changed.left_out == of_tokens
    assert changed.heads == plain.heads
    own = Request(prompt=REPEATED, interventions=(*of_tokens, off))
    text = engine.answer(HeadsQuestion(own, own_text=True))
    assert text.left_out == ()
    assert text.heads != engine.answer(HeadsQuestion(Request(prompt=REPEATED), own_text=True)).heads


def test_a_cut_of_a_long_text_is_that_of_the_token_of_this_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a text that is longer than what is scored, or than the context, the end is scored; tokens keep their numbers."""
    from tui_llm.instruments.heads import answer

    monkeypatch.setattr(answer, "LONGEST", 12)
    save_byte_model(tmp_path / "bytes", GPTConfig(vocabulary=257, context=24, layers=2, heads=2, width=16), seed=3)
    engine = PipelineEngine("cpu")
    engine.open(str(tmp_path / "bytes"))
    end = "abcabcabdabc"
    wanted = engine.answer(
        HeadsQuestion(Request(prompt=end, interventions=(Intervention(ModelPart(KEY, 5)),)), own_text=True)
    )
    assert wanted.heads != engine.answer(HeadsQuestion(Request(prompt=end), own_text=True)).heads
    for before in (8, 40):
        cut = (Intervention(ModelPart(KEY, before + 5)),)
        found = engine.answer(HeadsQuestion(Request(prompt="x" * before + end, interventions=cut), own_text=True))
        assert (found.counts, found.heads) == (wanted.counts, wanted.heads)


def test_int8_weights_are_scored_nearly_the_same() -> None:
    exact, low = (open_model("nano", weights=weights).heads(length=10).heads for weights in ("fp32", "int8"))
    for one, other in zip(exact, low, strict=True):
        assert [one.of(score) for score in SCORES] == pytest.approx([other.of(score) for score in SCORES], abs=0.02)


def test_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", "--seed", "2", "--length", "8", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (
        set(value["heads"][0]) == {"layer", "head", "induction", "previous", "duplicate"} and len(value["heads"]) == 16
    )
    assert (value["tokens"], value["seed"], value["length"]) == ("random", 2, 8)
    assert main(["heads", REPEATED]) == 0
    printed = capsys.readouterr().out
    assert "on the text" in printed and "induction: strongest in head 3.2" in printed
    for words, why in (
        (["x", "--seed", "1"], "--seed is for random tokens"),
        (["--length", "1"], "2 random tokens or more"),
        (["--seed", "-1"], "the seed is -1"),
        (["--run", "none"], "none"),
        (["--run", "none", "text"], "leave out"),
    ):
        try:
            code = main(["heads", *words])
        except SystemExit as error:
            code = int(error.code or 0)
        told = capsys.readouterr().err
        assert code and why in told and told.count("\n") == 1


def test_a_context_or_vocabulary_that_is_too_small(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocabulary=4, context=4, layers=1, heads=2, width=8))
    checkpoint.save(model, tmp_path / "small", end_of_text=3)
    ClosedTokenizer("char", "char", ["a", "b", "c", END_OF_TEXT]).save(tmp_path / "small")
    lab = open_model(str(tmp_path / "small"))
    with pytest.raises(UserError, match="too short for the detector"):
        lab.heads()
    for seed, length, why in ((2**62, 4, "the seed is"), (-1, 4, "the seed is"), (1, 1, "the length is")):
        with pytest.raises(UserError, match=why):
            lab.heads(seed=seed, length=length)
    assert len(lab.heads("aba").heads) == 2


def test_another_architecture_equals_its_eager_attention(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(1)
    made = byte_level()
    config = LlamaConfig(**SHAPE, vocab_size=made.get_vocab_size(), num_key_value_heads=2, initializer_range=0.3)
    config._attn_implementation = "eager"
    reference = LlamaForCausalLM(config).eval()
    reference.save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>").save_pretrained(tmp_path)
    lab = open_model(str(tmp_path))
    before = lab.read(REPEATED[:20])
    found = lab.heads(REPEATED[:30])
    ids = [token.id for token in lab.tokens(REPEATED[:30]).tokens]
    assert 2 < len(ids) <= CONTEXT
    with torch.inference_mode():
        theirs = reference(torch.tensor([ids]), output_attentions=True).attentions
    scorer = head_scores.Scorer()
    scorer.add(ids, [layer[0] for layer in theirs])
    for one, other in zip(found.heads, scorer.scores(), strict=True):
        assert [one.of(score) for score in SCORES] == pytest.approx([other.of(score) for score in SCORES], abs=1e-5)
    assert len(found.heads) == 8
    assert lab.read(REPEATED[:20]).distribution == before.distribution  # its own attention is back
    assert len(lab.heads().heads) == 8
