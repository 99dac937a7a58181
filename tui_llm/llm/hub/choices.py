"""What a model's numbers depend on beside its weights: `ModelChoices` from its files. No torch here: `open_model.py` has
those of an open model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.facts.model import ModelChoices
from tui_llm.llm.adapters import description
from tui_llm.llm.adapters.chat import template_of
from tui_llm.llm.formats import detect
from tui_llm.llm.hub.hub import load_vocabulary, vocabulary_of_file
from tui_llm.llm.model import switches
from tui_llm.llm.model.model_config import is_gpt2, read_config
from tui_llm.llm.model.tensor_shapes import headers_once
from tui_llm.llm.tokens.token_bytes import token_text
from tui_llm.llm.tokens.tokenizer import Tokenizer


@headers_once()
def of_files(path: Path, name: str) -> ModelChoices:
    """As far as its files tell without opening it. Raises `UserError` if its vocabulary can't be read so."""
    if detect.is_file(path):
        return of_vocabulary(vocabulary_of_file(path, name)[0])
    vocabulary = load_vocabulary(path, name)
    rows = description.described(path)[2]
    return of_vocabulary(
        vocabulary,
        tied=description.stated_tying(path),
        stored=description.stored_dtype(path),
        padding=0 if rows is None else max(0, rows - vocabulary.size),
        chat=template_of(path, name) is not None,
        longrope=description.longrope_of(path),
        switches=_switches(path),
    )


def _switches(path: Path) -> tuple[str, ...]:
    """Its architecture switches beside the head's, as far as it is a model of ours; none if its config can't be read."""
    try:
        config = read_config(path) if is_gpt2(path) else None
    except UserError:  # opening it says why
        config = None
    return () if config is None else tuple(name for name in switches.names_of(config) if name != switches.UNTIED)


def of_vocabulary(vocabulary: Tokenizer, **facts: Any) -> ModelChoices:
    """`facts`: the fields that don't follow from the vocabulary."""
    start = vocabulary.start
    return ModelChoices(
        prefix_space=_adds_space(vocabulary),
        start="" if start is None else _text(vocabulary, start),
        starts=vocabulary.starts,
        **facts,
    )


def _adds_space(vocabulary: Tokenizer) -> bool:
    """Whether a text is encoded with a space in front. A vocabulary of characters or words, which has no such rule, may not have
    the letter that is tried."""
    try:
        return vocabulary.encode("a") != vocabulary.encode_after("a")
    except UserError:
        return False


def _text(vocabulary: Tokenizer, id: int) -> str:
    try:
        return token_text(vocabulary.token_bytes(id))
    except KeyError:
        return f"<unused {id}>"
