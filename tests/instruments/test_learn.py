"""Learn this: against steps computed with autograd, torch's optimizers and transformers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoTokenizer, GPT2LMHeadModel

from tests.byte_models import save_byte_model
from tests.near_ties import possible_ranks
from tui_llm.common import paths
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import MLP, Intervention, ModelPart
from tui_llm.facts.pin import Pin
from tui_llm.facts.recipe import Recipe
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.ablate.question import AblateQuestion, EffectsQuestion
from tui_llm.instruments.backward.question import BackwardQuestion
from tui_llm.instruments.learn.answer import _candidates
from tui_llm.instruments.learn.question import KeepQuestion, Learned, LearnQuestion
from tui_llm.llm.learn import learner
from tui_llm.llm.model import checkpoint, device
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig

SGD, ADAMW = Recipe("sgd", 0.05), Recipe("adamw", 1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model over bytes. Padding rows of its embedding would have the largest logits if not excluded."""
    shape = GPTConfig(vocabulary=264, context=24, layers=2, heads=2, width=16)
    return save_byte_model(tmp_path_factory.mktemp("models") / "tiny", shape, padding=10.0)


@pytest.fixture
def engine(folder: Path) -> PipelineEngine:
    made = PipelineEngine("cpu")
    made.open(str(folder))
    return made


def request(target: str = "mat", prompt: str = "The cat ") -> Request:
    return Request(prompt=prompt, target=Target(text=target))


def learn(engine: PipelineEngine, at: int, recipe: Recipe = SGD, asked: Request | None = None, *pins: Pin) -> Learned:
    return engine.answer(LearnQuestion(asked or request(), at, recipe, pins))


def copy_of(engine: PipelineEngine) -> GPT:
    return engine.screen_cache["learn"].learner.model


def flat(model: GPT) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def loss_of(model: GPT, ids: list[int], wanted: list[int]) -> torch.Tensor:
    logits = model(torch.tensor([ids + wanted[:-1]]), last=len(wanted))[0, :, :257]
    return F.cross_entropy(logits, torch.tensor(wanted))


def test_a_step_of_sgd_is_the_gradient_by_hand(engine: PipelineEngine, folder: Path) -> None:
    told = learn(engine, 1)
    ids, wanted = engine.target(request())
    fresh = checkpoint.load(folder).requires_grad_(True)
    before = loss_of(fresh, ids, wanted)
    gradients = torch.autograd.grad(before, list(fresh.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(fresh.parameters(), gradients, strict=True):
            parameter -= 0.05 * gradient
    torch.testing.assert_close(flat(copy_of(engine)), flat(fresh), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        after = float(loss_of(fresh, ids, wanted))
    assert told.before.loss == pytest.approx(float(before.detach()), abs=1e-4)
    assert told.after.loss == told.steps[0].loss == pytest.approx(after, abs=1e-4)
    assert told.after.probability == pytest.approx(math.exp(-3 * after), rel=1e-3)
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
    assert told.steps[0].gradient_norm == pytest.approx(norm, rel=1e-4)
    assert told.after.loss < told.before.loss


def test_steps_of_adamw_are_torchs(engine: PipelineEngine, folder: Path) -> None:
    learn(engine, 3, ADAMW)
    ids, wanted = engine.target(request())
    fresh = checkpoint.load(folder).requires_grad_(True)
    optimizer = torch.optim.AdamW(fresh.parameters(), lr=1e-3, weight_decay=0.01)
    with device.threads(0):  # as many as the engine uses: AdamW amplifies rounding errors of gradients that should be 0
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(fresh, ids, wanted).backward()
            optimizer.step()
    ours, theirs = flat(copy_of(engine)), flat(fresh)
    close = torch.isclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert float(close.float().mean()) > 0.99  # AdamW makes a full step even if a gradient is only rounding noise
    assert float((ours - theirs).abs().max()) < 2 * 3 * 1e-3  # the largest possible distance of both


def test_before_is_the_reading_of_the_open_model_which_never_changes(engine: PipelineEngine) -> None:
    weights, reading = flat(engine.gpt).clone(), engine.read(request())
    told = learn(engine, 2, ADAMW)
    assert reading.loss is not None
    assert told.before.loss == pytest.approx(reading.loss.mean, abs=1e-4)
    assert told.before.probability == pytest.approx(math.exp(-reading.loss.sum), rel=1e-3)
    ids, wanted = engine.target(request())
    with torch.no_grad():
        logits = engine.gpt(torch.tensor([ids]))[0, -1, :257]
    assert {told.before.rank, reading.loss.tokens[0].loss.rank} <= set(possible_ranks(logits, wanted[0]))
    assert bool((flat(engine.gpt) == weights).all())
    again = engine.read(request())
    assert again.loss == reading.loss and again.distribution == reading.distribution
    assert not any(p.requires_grad for p in engine.gpt.parameters())


@pytest.mark.parametrize("budget", [1 << 30, 200_000, 0], ids=["all kept", "some kept", "none kept"])
def test_undo_restores_the_exact_weights(engine: PipelineEngine, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "BUDGET", budget)
    recipes = [SGD, ADAMW, ADAMW, SGD, Recipe("sgd", 0.01)]
    weights, losses = [flat(engine.gpt).clone()], []
    for at, recipe in enumerate(recipes, 1):
        told = learn(engine, at, recipe)
        assert told.kept_bytes <= budget
        weights.append(flat(copy_of(engine)).clone())
        losses.append(told.after.loss)
    # A state of this model is 44,800 bytes after SGD, 134,400 after AdamW.
    assert told.kept in {1 << 30: (5,), 200_000: range(1, 5), 0: (0,)}[budget]
    for at in (4, 3, 2, 1, 0):
        told = learn(engine, at)
        assert bool((flat(copy_of(engine)) == weights[at]).all())
        assert [step.recipe for step in told.steps] == recipes[:at]
        assert [step.loss for step in told.steps] == losses[:at]
    assert bool((flat(engine.gpt) == weights[0]).all())
    for at, recipe in enumerate(recipes, 1):  # and forward again: AdamW's state was undone too
        learn(engine, at, recipe)
    assert bool((flat(copy_of(engine)) == weights[5]).all())


def test_the_same_question_again_takes_no_further_step_also_when_interrupted(engine: PipelineEngine) -> None:
    told = learn(engine, 2)
    assert learn(engine, 2, ADAMW).steps == told.steps
    calls = iter(range(100))
    question = LearnQuestion(request(), 6, SGD)
    with pytest.raises(Overtaken):
        engine.answer(question, lambda: next(calls) >= 2)
    assert len(engine.screen_cache["learn"].learner.steps) == 4
    finished = engine.answer(question)
    assert len(finished.steps) == 6
    assert finished.steps[:2] == told.steps
    weights = flat(copy_of(engine)).clone()
    learn(engine, 0)
    learn(engine, 6)
    assert bool((flat(copy_of(engine)) == weights).all())


def test_candidates_and_pins_are_the_models_own_numbers(engine: PipelineEngine) -> None:
    pins = (
        Pin("A dog", " ran"),
        Pin("Once"),
        Pin(""),
        Pin("x", "y" * 100),
        Pin("\x1b[31m[/]", "\u202e"),
    )
    told = learn(engine, 2, Recipe("sgd", 0.2), None, *pins)
    rows = []
    for model in (engine.gpt, copy_of(engine)):
        with torch.no_grad():
            rows.append(model(torch.tensor([engine.target(request())[0]]))[0, -1, :257])
    ranks = [(possible_ranks(rows[0], id), possible_ranks(rows[1], id)) for id in range(257)]
    shown, (target, *_) = {row.token.id for row in told.candidates}, engine.tokenizer.encode("m")
    surely = {
        id for id in range(257) if min(ranks[id][0][-1], ranks[id][1][-1]) <= 8
    }  # among the first eight before or after the step
    perhaps = {id for id in range(257) if min(ranks[id][0][0], ranks[id][1][0]) <= 8}
    assert surely | {target} <= shown <= perhaps | {target}
    before, after = (row.softmax(-1) for row in rows)
    for row in told.candidates:
        assert row.before == pytest.approx(float(before[row.token.id]), rel=1e-4, abs=1e-7)
        assert row.after == pytest.approx(float(after[row.token.id]), rel=1e-4, abs=1e-7)
        assert row.rank_after in ranks[row.token.id][1]
    assert [r.target for r in told.candidates].count(True) == 1
    dog, once, empty, long, hostile = told.pins
    ids, wanted = (engine.tokenizer.encode(text) for text in ("A dog", " ran"))
    for model, loss, p in (
        (engine.gpt, dog.loss_before, dog.probability_before),
        (copy_of(engine), dog.loss_after, dog.probability_after),
    ):
        with torch.no_grad():
            expected = float(loss_of(model, ids, wanted))
        assert loss == pytest.approx(expected, abs=1e-4) and p == pytest.approx(math.exp(-4 * expected), rel=1e-3)
    with torch.no_grad():
        before, after = (
            m(torch.tensor([engine.tokenizer.encode("Once")]))[0, -1, :257] for m in (engine.gpt, copy_of(engine))
        )
    expected = float(F.kl_div(after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="sum"))
    assert once.divergence == pytest.approx(expected, abs=1e-5) and once.loss_before is None
    assert once.first_after is not None and once.first_after.id == int(after.argmax())
    assert empty.problem and long.problem and not hostile.problem


def test_a_full_context_slides_as_the_readings_does(engine: PipelineEngine) -> None:
    asked = request("mat on", "The cat sat on the long, long")
    reading = engine.read(asked)
    told = learn(engine, 1, SGD, asked)
    assert reading.loss is not None and told.before.loss == pytest.approx(reading.loss.mean, abs=1e-4)
    assert told.after.loss < told.before.loss


def test_a_position_in_the_text_and_its_own_token(engine: PipelineEngine) -> None:
    asked = Request(prompt="The cat", position=4, target=Target(own=True))
    told = learn(engine, 1, SGD, asked)
    assert [token.text for token in told.target] == ["c"] and told.after.loss < told.before.loss


@pytest.mark.parametrize("budget", [1 << 30, 0])
def test_a_step_to_non_finite_logits_is_undone(
    engine: PipelineEngine, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise UserError("no numbers")

    monkeypatch.setattr(learner, "BUDGET", budget)
    learn(engine, 1)
    weights = flat(copy_of(engine)).clone()
    with monkeypatch.context() as patch:
        patch.setattr(learner, "token_losses", fail)
        with pytest.raises(UserError, match="choose a smaller one"):
            learn(engine, 2, ADAMW)
    assert len(learn(engine, 1).steps) == 1
    assert bool((flat(copy_of(engine)) == weights).all())
    learn(engine, 3)
    with pytest.raises(UserError, match="finite"):  # eventually the gradient is infinite
        for at in range(4, 12):
            done = learn(engine, at, Recipe("sgd", 1000.0)).steps
    assert learn(engine, len(done)).steps == done
    assert learn(engine, 1).steps == done[:1] and bool((flat(copy_of(engine)) == weights).all())


def test_invalid_learn_questions_are_refused(engine: PipelineEngine) -> None:
    for asked, at, recipe, why in (
        (Request(prompt="The cat"), 1, SGD, "the target is empty"),
        (request(prompt=""), 1, SGD, "no text before the target"),
        (request("x" * 65), 1, SGD, "65 tokens"),
        (request(), 201, SGD, "up to 200"),
        (request(), -1, SGD, "up to 200"),
        (request(), 1, Recipe("adam", 0.1), "sgd, adamw"),
        (request(), 1, Recipe("sgd", 0.0), "above 0"),
        (request(), 1, Recipe("sgd", math.nan), "above 0"),
    ):
        with pytest.raises(UserError, match=why):
            learn(engine, at, recipe, asked)
    with pytest.raises(UserError, match="take a step first"):
        engine.answer(KeepQuestion(request(), "mine"))


def test_short_memory_is_one_line_and_nothing_is_lost(engine: PipelineEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(learner.copy, "deepcopy", fail)
        with pytest.raises(UserError, match="not enough memory"):
            learn(engine, 1)
    assert learn(engine, 1).steps


def test_kept_as_a_folder_that_transformers_opens(
    engine: PipelineEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path))
    asked = request("[/]", "\x1b[31mThe | cat ")
    learn(engine, 2, ADAMW, asked)
    kept = engine.answer(KeepQuestion(asked, "mine"))
    folder = paths.models_dir() / "mine"
    assert (kept.name, kept.folder, kept.steps) == ("mine", str(folder), 2)
    ids = engine.ids(asked)
    reference = GPT2LMHeadModel.from_pretrained(folder).eval()
    with torch.no_grad():
        theirs, ours = reference(torch.tensor([ids])).logits, copy_of(engine)(torch.tensor([ids]))
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(folder)("The cat")["input_ids"] == engine.tokenizer.encode("The cat")
    card = (folder / "README.md").read_text()
    assert "2 optimizer steps" in card and "AdamW | 0.001" in card and "␛[31mThe | cat" in card and "\x1b" not in card
    after = learn(engine, 2, ADAMW, asked).after.loss
    opened = PipelineEngine("cpu")
    opened.open("mine")
    reading = opened.read(asked)
    assert reading.loss is not None and reading.loss.mean == pytest.approx(after, abs=1e-4)
    size = (folder / "model.safetensors").read_bytes()
    for name, why in (
        ("mine", "nothing is overwritten"),
        ("nano", "already"),
        ("", "can't name a model"),
        ("a b[red]\x1b", "can't name a model"),
        (f"{tmp_path}/mine\0", "can't be a path"),
        (str(tmp_path), "nothing is overwritten"),
    ):
        with pytest.raises(UserError, match=why):
            engine.answer(KeepQuestion(asked, name))
    assert (folder / "model.safetensors").read_bytes() == size
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write"):
        engine.answer(KeepQuestion(asked, f"{tmp_path}/file/under"))
    assert [path.name for path in paths.models_dir().iterdir()] == ["mine"]


def test_inside_a_text_longer_than_the_context_the_loss_is_the_panes(engine: PipelineEngine) -> None:
    asked = Request(prompt="The cat sat on the mat and looked", position=28, target=Target(own=True))
    reading = engine.read(asked)
    assert reading.loss is not None and reading.fed < reading.position
    assert learn(engine, 0, SGD, asked).before.loss == pytest.approx(reading.loss.sum, abs=1e-5)
    backward = engine.answer(BackwardQuestion(asked))
    assert backward.loss == pytest.approx(reading.loss.sum, abs=1e-5)
    assert [one.number for one in backward.tokens] == list(range(len(reading.prompt_ids) - reading.fed, 28))
    effects = engine.answer(EffectsQuestion(asked, (ModelPart(MLP, 0),)))
    assert effects.before.loss == pytest.approx(reading.loss.sum, abs=1e-5)
    alone = engine.answer(AblateQuestion(asked, (Intervention(ModelPart(MLP, 0)),)))
    assert effects.parts[0].values.loss == pytest.approx(alone.after.loss, abs=1e-5)
    with pytest.raises(UserError, match="context is the last 24 tokens"):
        learn(engine, 0, SGD, dataclasses.replace(asked, position=5))


def test_the_likeliest_tokens_are_those_of_float64(engine: PipelineEngine) -> None:
    logs = np.full(engine.tokenizer.size, -10.0)
    logs[7] += 1e-9  # equal in float32
    rows = _candidates(engine, logs, logs, 3, 1)
    assert [row.token.id for row in rows] == [7, 3]
