"""Ablation as questions; and every other question on a changed model: it shows the change, or refuses."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.byte_models import save_byte_model
from tests.near_ties import possible_ranks
from tui_llm import instruments
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.interventions import (
    ATTENTION,
    HEAD,
    KEY,
    MEAN,
    MLP,
    PATCH,
    RESIDUAL,
    TOKENS,
    ZERO,
    Intervention,
    ModelPart,
    fitting,
)
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Question, Request, Target
from tui_llm.instruments.ablate.changes import effects_of_all, interventions_of
from tui_llm.instruments.ablate.question import AblateQuestion, EffectsQuestion, ReferenceQuestion
from tui_llm.instruments.attention.question import AttentionQuestion
from tui_llm.instruments.compare_models.question import CompareModelsQuestion
from tui_llm.instruments.learn.question import LearnQuestion
from tui_llm.instruments.lens.question import LensQuestion
from tui_llm.instruments.neighbours.question import NeighboursQuestion
from tui_llm.instruments.scratch.question import ScratchQuestion
from tui_llm.instruments.tree.question import BranchQuestion
from tui_llm.llm.model.interventions import GPTLayout, Hooks
from tui_llm.llm.model.shape import GPTConfig

NANO = paths.shipped_models_dir() / "nano"
TEXT = "Once upon a time, there was a little"
OFF = (Intervention(ModelPart(HEAD, 0, 1)), Intervention(ModelPart(MLP, 2)))


@pytest.fixture(scope="module")
def engine() -> PipelineEngine:
    made = PipelineEngine("cpu")
    made.open("nano")
    return made


@pytest.fixture(scope="module")
def theirs() -> Any:
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(NANO, attn_implementation="eager", dtype=torch.float32).eval()


def loss(reading: Reading) -> float:
    assert reading.loss is not None and not reading.loss.problem
    return reading.loss.mean


@pytest.mark.parametrize("target", [None, Target(text=" girl"), Target(text=" girl named Lily"), Target(id=5)])
def test_before_and_after_are_what_the_panes_show(engine: PipelineEngine, target: Target | None) -> None:
    request = Request(prompt=TEXT, target=target)
    found = engine.answer(AblateQuestion(request, OFF))
    wanted = target or Target(id=found.target[0].id)
    plain = engine.read(Request(prompt=TEXT, target=wanted))
    with torch.inference_mode():
        logits = engine.gpt(torch.tensor([engine.ids(request)]))[0, -1]
    changed = engine.read(Request(prompt=TEXT, target=wanted, interventions=OFF))
    assert (found.before.loss, found.after.loss) == (loss(plain), loss(changed))
    assert found.after.logit == changed.loss.tokens[0].loss.logit  # type: ignore[union-attr]
    ranks = possible_ranks(logits, found.target[0].id)
    assert found.before.rank in ranks and plain.loss.tokens[0].loss.rank in ranks  # type: ignore[union-attr]
    assert target is not None or 1 in ranks
    effects = engine.answer(EffectsQuestion(request, (ModelPart(HEAD, 0, 1),)))
    alone = engine.answer(AblateQuestion(request, OFF[:1]))
    assert effects.before.loss == pytest.approx(found.before.loss, abs=1e-4)
    assert effects.parts[0].values.loss == pytest.approx(alone.after.loss, abs=1e-4)
    assert [token.text for token in effects.text][-1] == " little"


def test_inside_the_text_the_target_is_its_own_next_token(engine: PipelineEngine) -> None:
    request = Request(prompt=TEXT, position=3)
    found = engine.answer(AblateQuestion(request, OFF))
    assert (found.chosen, found.target[0].text) == ("next", " time")
    changed = engine.read(dataclasses.replace(request, target=Target(own=True), interventions=OFF))
    assert found.after.loss == loss(changed)


def test_means_and_other_prompts(engine: PipelineEngine) -> None:
    request = Request(prompt=TEXT)
    part = ModelPart(ATTENTION, 1)
    (mean,) = interventions_of(engine.answer, request, [part], mean=True)
    assert (mean.how, mean.reference) == (MEAN, tuple(engine.ids(request)))
    (patch,) = interventions_of(engine.answer, request, [part], other="The end of it")
    other = tuple(engine.ids(Request(prompt="The end of it")))
    assert (patch.how, patch.reference, patch.shift) == (PATCH, other, len(other) - len(mean.reference))
    for one, asked in ((mean, {"mean": True}), (patch, {"other": "The end of it"})):
        every = effects_of_all(engine.answer, request, engine.weights(), **asked)  # type: ignore[arg-type]
        (alone,) = (found for found in every.parts if found.part == part)
        assert alone.values.loss == pytest.approx(engine.answer(AblateQuestion(request, (one,))).after.loss, abs=1e-4)
    same = interventions_of(engine.answer, request, [part], other=TEXT)
    unchanged = engine.answer(AblateQuestion(request, same))
    assert unchanged.after.loss == pytest.approx(unchanged.before.loss, abs=1e-4)


def test_bad_input_gets_one_line(engine: PipelineEngine) -> None:
    for request, part, words in (
        (Request(prompt=""), ModelPart(MLP, 0), "nothing"),
        (Request(prompt=TEXT), ModelPart(MLP, 9), "no MLP 9"),
        (Request(prompt=TEXT), ModelPart(KEY, 40), "no token 40"),
        (Request(prompt=TEXT, target=Target(text="")), ModelPart(MLP, 0), "target"),
    ):
        with pytest.raises(UserError, match=words):
            changes = interventions_of(engine.answer, request, [part])
            engine.answer(AblateQuestion(request, changes))
    with pytest.raises(UserError, match="no tokens"):
        engine.answer(ReferenceQuestion(Request(prompt=TEXT), ""))
    one = engine.answer(AblateQuestion(Request(prompt="a"), OFF))  # one token is a text
    assert one.before.rank == 1
    assert len(effects_of_all(engine.answer, Request(prompt="a"), engine.weights()).parts) == 30


def test_in_a_full_context_token_numbers_are_the_texts(engine: PipelineEngine, theirs: Any) -> None:
    ids = engine.tokenizer.encode("One day, a cat sat on a red mat and saw a big dog. " * 20)[:300]
    steps = Request(prompt="x", continuation=tuple(ids))
    first = len(ids) + 1 - 256
    assert first > 0
    number = first + 250
    reading = engine.read(dataclasses.replace(steps, interventions=(Intervention(ModelPart(KEY, number)),)))
    count = 256
    mask = torch.full((count, count), float("-inf")).triu(1)
    mask[251:, 250] = float("-inf")
    fed = torch.tensor([list(reading.prompt_ids)[-count:]])
    with torch.no_grad():
        wanted = theirs(fed, attention_mask=mask[None, None]).logits[0, -1].softmax(-1)
    best = reading.distribution.candidates[0]  # type: ignore[union-attr]
    assert best.raw_probability == pytest.approx(float(wanted[best.id]), abs=1e-4)
    several = dataclasses.replace(
        steps, interventions=(Intervention(ModelPart(KEY, number)),), target=Target(text=" cat sat")
    )
    assert "context is full" in (engine.read(several).loss.problem or "")  # type: ignore[union-attr]
    found = engine.answer(EffectsQuestion(steps, (ModelPart(MLP, 0),)))
    assert found.cropped == first


def test_the_changed_state_is_kept_while_a_question_needs_the_unchanged_model(engine: PipelineEngine) -> None:
    changed = Request(prompt=TEXT, interventions=OFF)
    first = engine.read(changed)
    engine.answer(EffectsQuestion(changed, (ModelPart(MLP, 0),)))
    again = engine.read(changed)
    assert again.forward_tokens == 0 and again.distribution == first.distribution
    engine.answer(NeighboursQuestion(Request(), id=5))
    assert engine.read(changed).forward_tokens == 0
    assert engine.read(Request(prompt=TEXT)).distribution != first.distribution


# ── the other questions ──

SHOWN = {
    "AttentionQuestion", "NeuronsQuestion", "BranchQuestion", "ChatQuestion", "CompareModelsQuestion", "DrawQuestion", "FindQuestion", "GhostQuestion",
    "GradientQuestion", "HistogramQuestion", "LensQuestion", "PairsQuestion", "PlaceQuestion", "RoundQuestion", "SampleQuestion",
    "BackwardQuestion", "BlockQuestion", "HeadsQuestion", "LensGridQuestion",
    "SwapQuestion", "TemperaturesQuestion", "VocabularyQuestion", "WhyQuestion",
}  # fmt: skip
INDEPENDENT = {
    "AblateQuestion", "EffectsQuestion", "ReferenceQuestion",  # they switch the parts themselves
    "PatchQuestion", "SteerQuestion", "SteerSaveQuestion",  # they compare changed and unchanged models
    "BetsQuestion", "ChoicesQuestion", "KnownQuestion", "MergesQuestion", "NeighboursQuestion", "PairsFileQuestion", "ScratchQuestion",
    "TextFileQuestion", "VocabulariesQuestion",
}  # fmt: skip
REFUSED = {
    "AnswersQuestion", "InstructQuestion", "KeepQuestion", "LearnQuestion", "PreferQuestion", "PreferTextQuestion", "RewardQuestion",
    "SavePreferredQuestion", "SaveRewardedQuestion", "SftQuestion",
}  # fmt: skip


def kinds() -> list[type[Question[Any]]]:
    for found in pkgutil.walk_packages(instruments.__path__, "tui_llm.instruments."):
        if found.name.endswith(".question"):
            importlib.import_module(found.name)
    return [kind for kind in Question.__subclasses__() if kind.__module__.startswith("tui_llm.instruments.")]


def test_it_was_decided_for_every_question_what_a_changed_model_means() -> None:
    for kind in kinds():
        name = kind.__name__
        if kind.unchanged_only:
            assert name in REFUSED, name
        elif not kind.uses_parts:
            assert name in INDEPENDENT, name
        else:
            assert name in SHOWN, f"{name}: does it show a changed model rightly? Then add it here"


def test_training_is_refused_and_never_copies_a_hook(engine: PipelineEngine) -> None:
    request = Request(prompt=TEXT, target=Target(text=" girl"), interventions=OFF)
    engine.read(request)
    with pytest.raises(UserError, match=r"switch the parts on first \(0\): head 0\.1 off, MLP 2 off"):
        engine.answer(LearnQuestion(request, at=1))
    plain = dataclasses.replace(request, interventions=())
    before = engine.answer(LearnQuestion(plain, at=1)).before.loss
    assert before == pytest.approx(loss(engine.read(plain)), abs=1e-4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in engine.gpt.modules())


def test_independent_questions_leave_the_changed_model(engine: PipelineEngine) -> None:
    engine.read(Request(prompt=TEXT, interventions=OFF))
    engine.answer(ScratchQuestion(Request(), ("a=1", "b=2")))
    assert engine.read(Request(prompt=TEXT, interventions=OFF)).forward_tokens == 0


CHANGES = [
    (Intervention(ModelPart(KEY, 4)),),
    (Intervention(ModelPart(TOKENS), MEAN, (5, 9)),),
    (Intervention(ModelPart(RESIDUAL, 2), PATCH, (5, 9, 11), at=1),),
    (Intervention(ModelPart(RESIDUAL, 4), ZERO, at=2), Intervention(ModelPart(HEAD, 1, 1))),
    OFF,
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: changes[0].name)
def test_the_lens_ends_in_the_changed_prediction(engine: PipelineEngine, changes: tuple[Intervention, ...]) -> None:
    for number in (1, 2, 8):
        request = Request(prompt=TEXT, interventions=changes)
        lens = engine.answer(LensQuestion(request, number))
        reading = engine.read(dataclasses.replace(request, position=number + 1))
        best = reading.distribution.candidates[0]  # type: ignore[union-attr]
        assert lens.rows[-1].guesses[0].probability == pytest.approx(best.raw_probability, abs=1e-5)


def test_attention_is_that_of_the_changed_model(engine: PipelineEngine, theirs: Any) -> None:
    request = Request(prompt=TEXT, interventions=(Intervention(ModelPart(KEY, 4)),))
    ids = engine.ids(request)
    mask = torch.full((len(ids), len(ids)), float("-inf")).triu(1)
    mask[5:, 4] = float("-inf")
    with torch.no_grad():
        found = theirs(torch.tensor([ids]), attention_mask=mask[None, None], output_attentions=True).attentions
    shown = engine.answer(AttentionQuestion(request))
    for layer, heads in enumerate(shown.heads):
        for head, row in enumerate(heads):
            assert row.weights == pytest.approx(found[layer][0, head, -1].tolist(), abs=1e-4)
            assert row.weights[4] == 0
    own = engine.answer(AttentionQuestion(request, 4))  # the token attends to itself
    assert own.heads[0][0].weights == pytest.approx(found[0][0, 0, 4, :5].tolist(), abs=1e-4)


def test_the_tree_and_a_comparison_show_the_changed_open_model(engine: PipelineEngine) -> None:
    request = Request(prompt=TEXT, interventions=OFF)
    reading = engine.read(request)
    best = reading.distribution.candidates[0]  # type: ignore[union-attr]
    (point,) = engine.answer(BranchQuestion(request, ((),), 1)).branchings
    assert point.nexts[0].token.id == best.id
    deeper = engine.answer(BranchQuestion(request, ((best.id,), (5, 7)), 1)).branchings
    for found, path in zip(deeper, ((best.id,), (5, 7)), strict=True):
        there = engine.read(dataclasses.replace(request, continuation=path)).distribution.candidates[0]  # type: ignore[union-attr]
        assert found.nexts[0].token.id == there.id
    sides = engine.answer(CompareModelsQuestion(request, ("nano",), tokens=2)).models
    plain = engine.read(Request(prompt=TEXT)).distribution.candidates[0]  # type: ignore[union-attr]
    probabilities = [side.reading.distribution.candidates[0].raw_probability for side in sides]  # type: ignore[union-attr]
    assert probabilities == pytest.approx([best.raw_probability, plain.raw_probability], abs=1e-4)


def test_generated_tokens_say_what_was_off(engine: PipelineEngine) -> None:
    (step,) = engine.generate(Request(prompt=TEXT, interventions=OFF), seed=1)
    assert step.interventions == OFF
    (plain,) = engine.generate(Request(prompt=TEXT), seed=1)
    assert plain.interventions == ()


def test_a_numpy_reader_gives_way_to_torch() -> None:
    engine = PipelineEngine("cpu", numpy_first=True)
    assert engine.open("nano").reader == "numpy"
    changed = engine.read(Request(prompt=TEXT, target=Target(text=" girl"), interventions=OFF))
    assert changed.weights.reader == "torch"
    assert engine.answer(AblateQuestion(Request(prompt=TEXT, target=Target(text=" girl")), OFF)).after.loss == loss(
        changed
    )


def test_what_another_model_lacks_is_dropped() -> None:
    changes = (*OFF, Intervention(ModelPart(HEAD, 0, 0), MEAN, (1, 2)))
    assert fitting(changes, 4, 4) == (changes, ())
    assert fitting(changes, 2, 2) == ((changes[0], changes[2]), (changes[1],))
    assert fitting(changes, 4, 4, same_tokens=False) == (OFF, (changes[2],))


def test_the_effects_of_all_parts_leave_out_the_rows_that_pad_the_embedding(tmp_path: Path) -> None:
    shape = GPTConfig(vocabulary=264, context=32, layers=2, heads=2, width=16)
    padded = PipelineEngine("cpu")
    padded.open(str(save_byte_model(tmp_path / "padded", shape, padding=10.0)))
    request = Request(prompt="The cat sat", target=Target(text=" on"))
    every = effects_of_all(padded.answer, request, padded.weights())
    ids = torch.tensor([padded.ids(request)])
    for found in every.parts:
        alone = padded.answer(AblateQuestion(request, (Intervention(found.part),))).after
        assert found.values.loss == pytest.approx(alone.loss, abs=1e-4)
        hooks = Hooks(GPTLayout(padded.gpt), (Intervention(found.part),))
        with torch.inference_mode():
            logits = padded.gpt(ids)[0, -1, :257]
        hooks.remove()
        assert {found.values.rank, alone.rank} <= set(possible_ranks(logits, every.target[0].id))


def test_the_same_window_with_other_token_numbers_is_read_again(tmp_path: Path) -> None:
    shape = GPTConfig(vocabulary=257, context=16, layers=2, heads=2, width=16)
    folder = str(save_byte_model(tmp_path / "short", shape, padding=10.0))
    made, fresh = PipelineEngine("cpu"), PipelineEngine("cpu")
    made.open(folder)
    fresh.open(folder)
    off = (Intervention(ModelPart(KEY, 6)),)
    long, short = (Request(prompt="a" * count, interventions=off) for count in (20, 16))
    numbers = made.read(long).distribution
    assert made.read(short).distribution == fresh.read(short).distribution != numbers
