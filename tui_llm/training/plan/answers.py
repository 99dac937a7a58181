"""The answers of a run that learns preferences or a reward: read, checked and tokenized before anything is written.

Does not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.llm.adapters.chat import template_of
from tui_llm.llm.data import corpora, preference_pairs, prompts
from tui_llm.llm.data.answer_rows import AnswerEncoder, AnswerRows
from tui_llm.llm.data.prompts import Prompt
from tui_llm.llm.hub import hub
from tui_llm.llm.model.model_config import read_config
from tui_llm.training.run.settings import PREFERENCE, PRETRAINING, TrainingSettings


def rows(settings: TrainingSettings, corpus: Sequence[str], model: Path) -> AnswerRows | None:
    """What a run with `settings` trains on, in the vocabulary of the folder `model`; None for a run on text.

    Raises `UserError` at the first line that can't be used: its number, and what is wrong.
    """
    if settings.objective == PRETRAINING:
        return None
    tokenizer = hub.load_trained(model, settings.from_model, read_config(model).vocabulary)
    template = template_of(model, settings.from_model)
    name = settings.from_model
    if settings.objective == PREFERENCE:
        if len(corpus) != 1:
            raise UserError(
                f"preference pairs are read from one file, not {len(corpus)}: a .jsonl with lines of {preference_pairs.FORM}"
            )
        path = _file(corpus[0])
        encoder = AnswerEncoder(tokenizer, template, settings.block_size, name, str(path))
        found = encoder.pairs(preference_pairs.rows(path))
        found.split(settings.validation_fraction, settings.seed)  # so that an error shows here
        return found
    if not corpus:
        encoder = AnswerEncoder(tokenizer, template, settings.block_size, name, "the sample prompt")
        return encoder.prompts([Prompt(settings.sample_prompt)], settings.answer_tokens)
    if len(corpus) > 1:
        raise UserError(f"prompts are read from one file, not {len(corpus)}: a prompt a line, or a .jsonl")
    path = _file(corpus[0])
    encoder = AnswerEncoder(tokenizer, template, settings.block_size, name, str(path))
    return encoder.prompts(prompts.read(path), settings.answer_tokens)


def _file(corpus: str) -> Path:
    place = corpora.place(corpus)
    if corpora.is_named(place):
        raise UserError(f"{corpus} is a corpus of text; give a file of pairs or prompts")
    path = Path(place)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give one file")
    return path
