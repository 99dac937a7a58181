"""The answers of a run that learns preferences or a reward, as tokens. Does not import torch, but the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tui_llm.llm.adapters.chat import template_of
from tui_llm.llm.data import preference_pairs, prompts
from tui_llm.llm.data.answer_rows import AnswerEncoder, AnswerRows
from tui_llm.llm.data.prompts import Prompt
from tui_llm.llm.hub import hub
from tui_llm.llm.model.model_config import read_config
from tui_llm.training.plan.answer_files import file_of
from tui_llm.training.run.settings import PREFERENCE, PRETRAINING, TrainingSettings


def rows(
    settings: TrainingSettings,
    corpus: Sequence[str],
    model: Path | None,
    progress: Callable[[int], object] = lambda _: None,
) -> AnswerRows | None:
    """What a run with `settings` trains on, in the vocabulary of the folder `model`; None for a run on text. `progress` gets the
    number of rows that are done.

    Raises `UserError` at the first line that can't be used: its number, and what is wrong.
    """
    if settings.objective == PRETRAINING or model is None:
        return None
    path, name = file_of(settings.objective, corpus), settings.from_model
    encoder = AnswerEncoder(
        hub.load_trained(model, name, read_config(model).vocabulary), template_of(model, name), settings.block_size,
        name, "the sample prompt" if path is None else str(path), progress,
    )  # fmt: skip
    if path is None:
        return encoder.prompts([Prompt(settings.sample_prompt)], settings.answer_tokens)
    if settings.objective == PREFERENCE:
        found = encoder.pairs(preference_pairs.rows(path))
        found.split(settings.validation_fraction, settings.seed)  # raises if there are too few
        return found
    return encoder.prompts(prompts.read(path), settings.answer_tokens)
