"""The engine's readings, against transformers and closed forms; and what it recomputes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

from tests.byte_models import save_byte_model
from tests.near_ties import possible_ranks
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request, Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens import catalog, tokenizer, vocabulary_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model over bytes, whose embedding is padded to 264 rows."""
    shape = GPTConfig(vocabulary=264, context=24, layers=2, heads=2, width=32)
    return save_byte_model(tmp_path_factory.mktemp("models") / "tiny", shape, seed=5, padding=30.0)


@pytest.fixture(scope="module")
def reference(folder: Path) -> GPT2LMHeadModel:
    return GPT2LMHeadModel.from_pretrained(folder).eval()


@pytest.fixture
def engine(folder: Path) -> PipelineEngine:
    made = PipelineEngine("cpu")
    made.open(str(folder))
    return made


def last_logits(reference: GPT2LMHeadModel, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return reference(torch.tensor([ids[-24:]])).logits[0, -1, :257]


def test_a_reading_equals_transformers(engine: PipelineEngine, reference: GPT2LMHeadModel) -> None:
    reading = engine.read(Request(prompt="The cat", top=257))
    wanted = last_logits(reference, list(reading.prompt_ids))
    distribution = reading.distribution
    assert distribution is not None
    assert {c.id for c in distribution.candidates} == set(range(257)), "padding ids are left out, all others are there"
    probability = torch.softmax(wanted, -1)
    for row in distribution.candidates:
        assert row.logit == pytest.approx(float(wanted[row.id]), abs=1e-4)
        assert row.raw_probability == pytest.approx(float(probability[row.id]), abs=1e-5)
    assert distribution.logsumexp == pytest.approx(float(wanted.logsumexp(-1)), abs=1e-4)
    assert distribution.vocabulary == reading.weights.vocabulary == 257
    assert reading.loss is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "cut", "insert", "replace"]),
            st.text("abc é", max_size=4),
            st.integers(0, 30),
        ),
        max_size=8,
    )
)
@settings(deadline=None, max_examples=40)
def test_a_reading_after_edits_equals_a_fresh_one(
    folder: Path, reference: GPT2LMHeadModel, edits: list[tuple[str, str, int]]
) -> None:
    """After any edit, and however much of the KV cache is used, the logits are those of the whole text."""
    engine, text = PipelineEngine("cpu"), "x"
    engine.open(str(folder))
    for kind, piece, place in edits:
        at = min(place, len(text))
        text = {
            "append": text + piece,
            "cut": text[:at],
            "insert": text[:at] + piece + text[at:],
            "replace": piece,
        }[kind]
        reading = engine.read(Request(prompt=text, top=3))
        if not reading.prompt_ids:
            assert reading.distribution is None
            assert reading.problem is not None
            continue
        wanted = last_logits(reference, list(reading.prompt_ids))
        assert reading.distribution is not None
        for row in reading.distribution.candidates:
            assert row.logit == pytest.approx(float(wanted[row.id]), abs=1e-4)


def test_what_runs_the_model(engine: PipelineEngine) -> None:
    first = engine.read(Request(prompt="abcdef"))
    assert first.forward_tokens == 6
    passes = engine.forwards
    request = Request(prompt="abcdef")
    for other in (
        dataclasses.replace(request, sampler=SamplerSettings(0.5)),
        dataclasses.replace(request, sampler=SamplerSettings(0.0)),
        dataclasses.replace(request, sampler=SamplerSettings(1.0, 5, 0.5, 0.1)),
        dataclasses.replace(request, target=Target(id=65)),
        dataclasses.replace(request, target=Target(text="q")),
        dataclasses.replace(request, tokenizer="word"),
    ):
        assert engine.read(other).forward_tokens == 0
    assert engine.forwards == passes, "temperature, cuts and a target of one token run nothing"
    assert engine.read(Request(prompt="abcdefg")).forward_tokens == 1, "appending feeds the new ids only"
    assert engine.read(Request(prompt="abcdXY")).forward_tokens == 2, "a changed end feeds the changed end"
    assert engine.read(Request(prompt="abc")).forward_tokens == 0, "cutting runs nothing: the features are there"


def test_several_target_tokens_run_once(engine: PipelineEngine) -> None:
    request = Request(prompt="abc", target=Target(text="defg"))
    engine.read(request)
    passes = engine.forwards
    engine.read(dataclasses.replace(request, sampler=SamplerSettings(0.3)))
    assert engine.forwards == passes
    assert engine.read(Request(prompt="abcd")).forward_tokens == 1, (
        "teacher forcing leaves the prompt's cache as it was"
    )


@pytest.mark.parametrize("prompt", ["ab", "a" * 20, "a" * 22, "abcdefghijklmnopqrstuvwxyz" * 2])
def test_loss_is_teacher_forced(engine: PipelineEngine, reference: GPT2LMHeadModel, prompt: str) -> None:
    """Each target token's loss, both if the context has room and if the window must slide."""
    target = "hello"
    reading = engine.read(Request(prompt=prompt, target=Target(text=target)))
    lossy = reading.loss
    assert lossy is not None
    ids = list(reading.prompt_ids)
    for token, byte in zip(lossy.tokens, target.encode(), strict=True):
        id = engine.tokenizer.encode(chr(byte))[0]
        wanted = last_logits(reference, ids)
        loss = float(torch.nn.functional.cross_entropy(wanted[None], torch.tensor([id])))
        assert token.token.id == token.loss.id == id
        assert token.loss.nats == pytest.approx(loss, abs=2e-4)
        assert token.loss.rank in possible_ranks(wanted, id)
        ids.append(id)
    assert lossy.sum == pytest.approx(sum(t.loss.nats for t in lossy.tokens))
    assert lossy.mean == pytest.approx(lossy.sum / 5)
    assert lossy.perplexity == pytest.approx(math.exp(lossy.mean))
    assert lossy.bits == pytest.approx(math.log2(lossy.perplexity))
    assert lossy.uniform_loss == pytest.approx(math.log(257))
    again = engine.read(Request(prompt=prompt, top=1)).distribution
    assert again is not None
    assert again.candidates[0].logit == pytest.approx(
        float(last_logits(reference, list(reading.prompt_ids)).max()), abs=1e-4
    )


def test_a_prompt_longer_than_the_context(engine: PipelineEngine) -> None:
    reading = engine.read(Request(prompt="z" * 100))
    assert (len(reading.prompt_ids), reading.fed, reading.tokens.count) == (100, 24, 100)
    assert reading.distribution is not None


def test_very_many_tokens_are_counted_but_not_sent(engine: PipelineEngine) -> None:
    tokens = engine.read(Request(prompt="y" * 50_000, token_window=100)).tokens
    assert (tokens.count, tokens.first, len(tokens.tokens)) == (50_000, 49_900, 100)


def test_an_empty_prompt(engine: PipelineEngine) -> None:
    reading = engine.read(Request())
    assert reading.distribution is None
    assert reading.loss is None
    assert "nothing to predict from" in (reading.problem or "")
    started = engine.read(Request(start_token=True))
    assert started.tokens.tokens[0].text == "<|endoftext|>"
    assert started.tokens.tokens[0].special
    assert started.distribution is not None


def test_special_text(engine: PipelineEngine) -> None:
    typed = engine.read(Request(prompt="a<|endoftext|>"))
    special = engine.read(Request(prompt="a<|endoftext|>", allow_special=True))
    assert (typed.tokens.count, special.tokens.count) == (14, 2)


def test_a_superseded_request_stops(engine: PipelineEngine) -> None:
    with pytest.raises(Overtaken):
        engine.read(Request(prompt="late"), overtaken=lambda: True)
    assert engine.read(Request(prompt="late")).distribution is not None


def test_generation_equals_repeated_readings(engine: PipelineEngine) -> None:
    """Greedy steps choose the reading's first row; single steps equal a stream; a seed is reproducible."""
    request = Request(prompt="abc", sampler=SamplerSettings(0.0))
    ids: tuple[int, ...] = ()
    for step in engine.generate(request, seed=1, count=8, stop_at_end=False):
        distribution = engine.read(dataclasses.replace(request, continuation=ids)).distribution
        assert distribution is not None
        assert step.id == distribution.candidates[0].id
        assert step.u is None
        ids += (step.id,)

    warm = Request(prompt="abc", sampler=SamplerSettings(1.0, top_p=0.9))
    whole = list(engine.generate(warm, seed=7, count=12, stop_at_end=False))
    single: list[int] = []
    for index in range(12):
        one = next(
            engine.generate(
                dataclasses.replace(warm, continuation=tuple(single)),
                seed=7,
                start=index,
                count=1,
                stop_at_end=False,
            )
        )
        single.append(one.id)
        assert one.u == whole[index].u
    assert single == [step.id for step in whole]
    assert [s.id for s in engine.generate(warm, seed=8, count=12, stop_at_end=False)] != single


def test_generation_stops_when_told(engine: PipelineEngine) -> None:
    seen: list[int] = []
    for step in engine.generate(
        Request(prompt="a"), seed=1, count=1000, stop=lambda: len(seen) >= 5, stop_at_end=False
    ):
        seen.append(step.id)
    assert len(seen) == 5
    with pytest.raises(UserError, match="nothing to predict from"):
        list(engine.generate(Request(), seed=1, count=1))


def test_generated_ids_are_kept_not_reencoded(engine: PipelineEngine) -> None:
    """Generated bytes that are not valid text stay in the context as their ids."""
    reading = engine.read(Request(prompt="a", continuation=(226, 128)))
    assert reading.prompt_ids[-2:] == (226, 128)
    assert reading.tokens.continuation == 2


def test_a_broken_model_is_reported(tmp_path: Path, folder: Path) -> None:
    model = checkpoint.load(folder)
    with torch.no_grad():
        model.norm.weight.fill_(math.nan)
    checkpoint.save(model, tmp_path, end_of_text=256)
    vocabulary_folder.save_folder(tokenizer.byte_level(), tmp_path)
    engine = PipelineEngine("cpu")
    engine.open(str(tmp_path))
    reading = engine.read(Request(prompt="abc", target=Target(text="d")))
    assert "NaN" in (reading.problem or "")
    assert reading.distribution is None
    with pytest.raises(UserError, match="NaN"):
        list(engine.generate(Request(prompt="abc"), seed=1, count=1))


def test_the_old_model_stays_when_another_cannot_be_opened(engine: PipelineEngine, tmp_path: Path) -> None:
    before = engine.weights()
    for wrong in ("nowhere", str(tmp_path), "../..", "\x1b[31m", "a\0b", ""):
        with pytest.raises(UserError):
            engine.open(wrong)
    assert engine.weights() == before
    assert engine.read(Request(prompt="still")).distribution is not None


def test_a_vocabulary_larger_than_its_model(tmp_path: Path) -> None:
    checkpoint.save(GPT(GPTConfig(vocabulary=100, context=8, layers=1, heads=1, width=8)), tmp_path)
    vocabulary_folder.save_folder(tokenizer.byte_level(), tmp_path)
    with pytest.raises(UserError, match="different models"):
        PipelineEngine("cpu").open(str(tmp_path))


def test_the_likeliest_target_is_that_of_the_largest_logit(engine: PipelineEngine) -> None:
    """Compared with torch's argmax over the model's own logits; a what-if moves it, a repetition penalty does not."""
    likeliest = Target(likeliest=True)
    other = SamplerSettings(temperature=0.5, top_k=3, repetition_penalty=5.0)
    for prompt in ("abc", "the cat the cat the", "zzzz"):
        ids = engine.ids(Request(prompt=prompt))
        with torch.no_grad():
            logits = engine.gpt(torch.tensor([ids]))[0, -1, : engine.tokenizer.size]
        for sampler in (SamplerSettings(), other):
            read = engine.read(Request(prompt=prompt, target=likeliest, sampler=sampler)).loss
            assert read is not None and [token.loss.id for token in read.tokens] == [int(logits.argmax())]
            assert read.tokens[0].loss.rank == 1
        changed = engine.read(Request(prompt=prompt, target=likeliest, overrides=((7, 1e3),))).loss
        assert changed is not None and changed.tokens[0].loss.id == 7
    empty = engine.read(Request(target=likeliest))
    assert empty.loss is None and empty.problem


def test_invalid_targets_are_refused(engine: PipelineEngine) -> None:
    empty = engine.read(Request(prompt="a", target=Target(text="")))
    assert empty.loss is not None
    assert "empty" in (empty.loss.problem or "")
    beyond = engine.read(Request(prompt="a", target=Target(id=999)))
    assert beyond.loss is not None
    assert "no token 999" in (beyond.loss.problem or "")


def test_other_vocabularies_for_comparison(engine: PipelineEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUI_LLM_VOCABULARY_MIRROR", "http://127.0.0.1:9")
    catalog.load_named.cache_clear()
    words = engine.read(Request(prompt="the cat the", tokenizer="word")).tokens
    assert (words.tokenizer, words.count) == ("word", 5)
    with monkeypatch.context() as without:
        without.setattr(catalog.vocabulary_files, "packaged", lambda name: None)
        offline = engine.read(Request(prompt="the cat", tokenizer="o200k_base"))
    assert "vocabulary add" in (offline.tokens.problem or "")
    assert offline.distribution is not None, "the prediction goes on without it"
    catalog.load_named.cache_clear()
    assert engine.read(Request(prompt="the cat", tokenizer="o200k_base")).tokens.count == 2


# ── positions and scores ──


@pytest.mark.parametrize("prompt", ["abcdef", "abcdefghijklmnopqrstuvwxyz" * 2])
def test_every_position_is_read_as_transformers_predicts_there(
    engine: PipelineEngine, reference: GPT2LMHeadModel, prompt: str
) -> None:
    whole = engine.read(Request(prompt=prompt, scores=True))
    ids, passes = list(whole.prompt_ids), engine.forwards
    first = len(ids) - whole.fed
    with torch.no_grad():
        rows = reference(torch.tensor([ids[first:]])).logits[0, :, :257].double().log_softmax(-1)
    assert [score is None for score in whole.scores] == [at <= first for at in range(len(ids))]
    for at in range(len(ids)):
        reading = engine.read(Request(prompt=prompt, position=at, target=Target(own=True), top=3))
        assert reading.position == at and reading.following is not None and reading.following.id == ids[at]
        if at <= first:
            assert reading.distribution is None and reading.problem
            continue
        row, score = rows[at - first - 1], whole.scores[at]
        assert reading.loss is not None and reading.distribution is not None and score is not None
        assert reading.loss.sum == pytest.approx(-float(row[ids[at]]), abs=2e-4)
        assert score.surprisal == pytest.approx(reading.loss.sum, abs=1e-4)  # one row or several: different kernels
        assert score.probability == pytest.approx(math.exp(-score.surprisal), rel=1e-4)
        assert {score.rank, reading.loss.tokens[0].loss.rank} <= set(possible_ranks(row, ids[at]))
        entropy = -float((row.exp() * row).sum())
        assert score.entropy == pytest.approx(entropy, abs=1e-4)
        assert reading.distribution.entropy == pytest.approx(entropy, abs=1e-4)
    assert engine.forwards == passes, "moving the cursor runs nothing"


def test_a_target_far_longer_than_the_context_is_refused(engine: PipelineEngine) -> None:
    longest = 24 - 3 + 1024 + 1  # the context holds the text and 21 tokens; the first token needs no pass of its own
    read = engine.read(Request(prompt="abc", target=Target(text="d" * longest)))
    assert read.loss is not None and read.loss.problem is None and len(read.loss.tokens) == longest
    read = engine.read(Request(prompt="abc", target=Target(text="d" * (longest + 1))))
    assert (
        read.loss is not None and "1,025 more than the context of 24" in str(read.loss.problem) and not read.loss.tokens
    )
    assert read.distribution is not None  # everything else is as ever


def test_targets_within_a_text(engine: PipelineEngine, reference: GPT2LMHeadModel) -> None:
    """A longer target at a position is teacher-forced from there; after that the text is read as before."""
    at_three = engine.read(Request(prompt="abcdef", position=3, target=Target(text="xyz"))).loss
    alone = engine.read(Request(prompt="abc", target=Target(text="xyz"))).loss
    assert at_three is not None and alone is not None
    assert [t.loss.nats for t in at_three.tokens] == pytest.approx([t.loss.nats for t in alone.tokens], abs=1e-5)
    whole = engine.read(Request(prompt="abcdef", top=3))
    wanted = last_logits(reference, list(whole.prompt_ids))
    assert whole.distribution is not None
    assert whole.distribution.candidates[0].logit == pytest.approx(float(wanted.max()), abs=1e-4)
    end = engine.read(Request(prompt="abc", target=Target(own=True))).loss
    assert end is not None and "no next token" in str(end.problem)
    assert engine.read(Request(prompt="abc", position=99)).position == 3


def test_scores_are_kept_as_the_text_grows(engine: PipelineEngine) -> None:
    before = engine.read(Request(prompt="abcdef", scores=True)).scores
    after = engine.read(Request(prompt="abcdXY", scores=True)).scores
    assert after[:4] == before[:4] and after[4:] != before[4:] and len(after) == 6
    assert engine.read(Request(prompt="abcdXY", scores=True, token_window=2)).scores == after[-2:]
    assert engine.read(Request(prompt="a", scores=True)).scores == (None,)
    assert engine.read(Request(prompt="", scores=True)).scores == ()


def test_a_continuation_of_another_vocabulary_is_refused(engine: PipelineEngine) -> None:
    size = engine.tokenizer.size
    assert engine.read(Request(prompt="a", continuation=(size - 1,))).prompt_ids[-1] == size - 1
    for request in (Request(prompt="a", continuation=(size,)), Request(continuation=(1, 98_000), tokenizer="byte")):
        with pytest.raises(UserError, match="does not know"):
            engine.read(request)
        with pytest.raises(UserError, match="does not know"):
            next(engine.generate(request, seed=1))
