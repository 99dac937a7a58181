"""A question to every instrument, for gpu.py and for tests: each is asked once on a small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tui_llm.facts.interventions import HEAD, ZERO, Intervention, ModelPart
from tui_llm.facts.request import Question, Request, Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.ablate.question import AblateQuestion, EffectsQuestion, ReferenceQuestion
from tui_llm.instruments.attention.question import AttentionQuestion
from tui_llm.instruments.backward.question import BackwardQuestion
from tui_llm.instruments.block.question import BlockQuestion
from tui_llm.instruments.choices.question import ChoicesQuestion
from tui_llm.instruments.compare_models.question import CompareModelsQuestion
from tui_llm.instruments.draws.question import DrawQuestion, HistogramQuestion
from tui_llm.instruments.ghost.question import GhostQuestion
from tui_llm.instruments.gradient.question import GradientQuestion
from tui_llm.instruments.guess.question import RoundQuestion
from tui_llm.instruments.heads.question import HeadsQuestion
from tui_llm.instruments.learn.question import LearnQuestion
from tui_llm.instruments.lens.question import LensGridQuestion, LensQuestion
from tui_llm.instruments.neighbours.question import NeighboursQuestion
from tui_llm.instruments.pairs.question import PairsQuestion
from tui_llm.instruments.patch.question import PatchQuestion
from tui_llm.instruments.prefer.question import AnswersQuestion, PreferTextQuestion
from tui_llm.instruments.reward.question import RewardQuestion
from tui_llm.instruments.sft.question import SftQuestion
from tui_llm.instruments.steer.question import Direction, SteerQuestion, SteerSaveQuestion
from tui_llm.instruments.swap.question import PlaceQuestion, SwapQuestion
from tui_llm.instruments.temperatures.question import TemperaturesQuestion
from tui_llm.instruments.tree.question import BranchQuestion, KnownQuestion, SampleQuestion
from tui_llm.instruments.vocabulary.question import FindQuestion, VocabularyQuestion
from tui_llm.instruments.why.question import NeuronsQuestion, WhyQuestion
from tui_llm.llm.data.instruction_pairs import Pair

LEFT_OUT = {
    "BetsQuestion", "MergesQuestion", "PairsFileQuestion", "ScratchQuestion", "TextFileQuestion", "VocabulariesQuestion",  # no model
    "ChatQuestion",  # a chat template, which the small model has not
    "InstructQuestion", "PreferQuestion", "KeepQuestion", "SavePreferredQuestion", "SaveRewardedQuestion",  # save what others learned
}  # fmt: skip
"""Questions that a GPU has no part in, or whose maths another question here has."""


def questions(prompt: str, other: str, folder: Path, model_folder: Path, model: str) -> dict[str, Question[Any]]:
    """A question of each kind but `LEFT_OUT`, by the name of its class. `other` differs from `prompt` in some tokens but not in
    their number; `model` is the open model's name, `folder` is for what an instrument writes."""
    plain = Request(prompt=prompt)
    aimed = Request(prompt=prompt, target=Target(id=5))
    changed = (Intervention(ModelPart(HEAD, 0, 0), ZERO),)
    direction = Direction(prompt, other, 1)
    made: list[Question[Any]] = [
        AblateQuestion(aimed, interventions=changed), EffectsQuestion(aimed), ReferenceQuestion(plain, text=other * 3),
        AttentionQuestion(plain), BackwardQuestion(aimed, whole=True), BlockQuestion(plain), ChoicesQuestion(plain, path=str(model_folder), name=model),
        CompareModelsQuestion(plain, others=(model,), tokens=4), DrawQuestion(plain, samplers=(SamplerSettings(),)),
        HistogramQuestion(plain, count=20), GhostQuestion(plain, count=4), GradientQuestion(aimed),
        RoundQuestion(plain, text=f"{prompt}. {other}. " * 3), HeadsQuestion(plain, length=8), LearnQuestion(aimed, at=1),
        LensQuestion(plain), LensGridQuestion(plain), NeighboursQuestion(plain, id=5), PairsQuestion(plain),
        PatchQuestion(aimed, clean=other), AnswersQuestion(plain, count=4), PreferTextQuestion(plain, chosen=" ate", rejected=" slept"),
        RewardQuestion(plain), SftQuestion(plain, pairs=(Pair("cat", "rug"),), at=0), SteerQuestion(plain, direction=direction, tokens=4),
        SteerSaveQuestion(plain, direction=direction, path=str(folder / "direction.safetensors")),
        SwapQuestion(Request(prompt=prompt, position=3), id=7), PlaceQuestion(plain), TemperaturesQuestion(plain), BranchQuestion(plain, paths=((),)),
        SampleQuestion(plain), KnownQuestion(plain, ids=(5, 6)), VocabularyQuestion(plain), FindQuestion(plain, find="e"),
        WhyQuestion(aimed), NeuronsQuestion(plain, number=1, layer=0, target=5, rival=6),
    ]  # fmt: skip
    return {type(one).__name__: one for one in made}
