"""The trainer of each objective: text, preference pairs, a reward."""

from __future__ import annotations

from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.training.run.settings import PREFERENCE, REWARD, TrainingSettings
from tui_llm.training.worker.answers import AnswerTrainer
from tui_llm.training.worker.distributed import Ranks
from tui_llm.training.worker.inputs import Inputs
from tui_llm.training.worker.loop import Trainer
from tui_llm.training.worker.preference import PreferenceTrainer
from tui_llm.training.worker.reward import RewardTrainer

TRAINERS: dict[str, type[PreferenceTrainer | RewardTrainer]] = {PREFERENCE: PreferenceTrainer, REWARD: RewardTrainer}


def trainer(loaded: Inputs, model: GPT, settings: TrainingSettings, ranks: Ranks) -> Trainer:
    """The trainer of a run. The reference of a run that learns from answers is the model that it started from.

    Raises `UserError` if the inputs are not those of the objective.
    """
    if settings.objective not in TRAINERS:
        return Trainer(model, loaded.corpus, settings, loaded.device, ranks)
    if loaded.start is None or loaded.answers is None:
        raise UserError("the run has no model to start from, or no answers; start a new run")
    reference = checkpoint.load(loaded.start)
    reference.used = model.used
    return TRAINERS[settings.objective](model, reference, loaded.answers, loaded.tokenizer, settings, loaded.device)


def facts(trainer: Trainer) -> dict[str, Any]:
    """What status.json records of the rows that are trained on and held out."""
    if not isinstance(trainer, AnswerTrainer):
        return {}
    return {"train_rows": trainer.trained, "held_out_rows": len(trainer.held_out)}
