"""The text of a new run, checked before the run is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tui_llm.llm.tokens.tokenizer import Tokenizer
    from tui_llm.training.run.settings import TrainingSettings


def check_files(settings: TrainingSettings, corpus: Sequence[str]) -> None:
    """Checks that the files are there, and that a text can be trained on, by its beginning. Downloads nothing. Raises `UserError`."""
    from pathlib import Path

    from tui_llm.llm.data import corpora, texts
    from tui_llm.training.plan.answer_files import has_pairs
    from tui_llm.training.run.settings import PRETRAINING

    places = list(map(corpora.place, corpus))
    if settings.objective != PRETRAINING:
        texts.files([Path(place) for place in places if not corpora.is_named(place)])
        return
    if len(corpus) == 1 and has_pairs(corpus[0]):
        raise UserError(
            f"{corpus[0]} has preference pairs; add --preference and the model to start from, such as --from nano"
        )
    if places:
        corpora.check(places, settings.text_format)


def check_text(settings: TrainingSettings, corpus: list[str], model: Path | None) -> None:
    """Checks the whole text, whose files are known to be there (`check_files`), so that an error shows here, not in the worker's log."""
    from tui_llm.llm.data import corpora
    from tui_llm.llm.data.corpus import check_size
    from tui_llm.llm.hub import hub

    places, how = list(map(corpora.place, corpus)), settings.text_format
    tokenizer = hub.load_trained(model) if model else _tokenizer(settings, places)
    if places and not any(map(corpora.is_named, places)):
        check_size(places, tokenizer, settings.validation_fraction, settings.block_size, how)


def _tokenizer(settings: TrainingSettings, places: list[str]) -> Tokenizer:
    """The vocabulary of a new run. Raises `UserError` if there is none, or it can't encode the prompt of the samples."""
    from tui_llm.llm.data import closed_vocabulary
    from tui_llm.llm.hub import hub
    from tui_llm.llm.tokens.closed import ClosedTokenizer
    from tui_llm.llm.tokens.closed_files import KINDS
    from tui_llm.training.plan import sample_prompt

    if settings.tokenizer not in KINDS:
        return hub.training_tokenizer(settings.tokenizer)
    found = closed_vocabulary.tokens(places, settings.tokenizer, settings.text_format)
    made = ClosedTokenizer(settings.tokenizer, settings.tokenizer, found)
    sample_prompt.usable(settings.sample_prompt, made.encode)
    return made
