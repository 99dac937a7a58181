"""Load vocabularies: of a model folder, or of a training run. No torch here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.llm.formats import detect
from tui_llm.llm.hub.lookup import vocabulary_folder
from tui_llm.llm.model.model_config import is_gpt2, is_gpt2_type
from tui_llm.llm.tokens import closed
from tui_llm.llm.tokens.catalog import load_named
from tui_llm.llm.tokens.closed import ClosedTokenizer
from tui_llm.llm.tokens.pre_tokenizer import UnknownRule
from tui_llm.llm.tokens.tokenizer import BPETokenizer, Tokenizer, byte_level
from tui_llm.llm.tokens.vocabulary_folder import load_folder, save_folder


def training_tokenizer(name: str) -> BPETokenizer:
    """The vocabulary that a run uses: `byte`, `gpt2`, or that of a model by name or folder.

    Raises `UserError` if it is not available as vocab.json and merges.txt.
    """
    if name == "byte":
        return byte_level()
    if name == "gpt2":
        tokenizer = load_named(name)
        assert isinstance(tokenizer, BPETokenizer)
        return tokenizer
    folder, its_name = vocabulary_folder(name)
    return load_folder(folder, its_name)


def load_vocabulary(path: Path, name: str, rows: int | None = None) -> Tokenizer:
    """The vocabulary of a model folder (`folder_files`), by tiktoken where it can, else by the `tokenizers` library.
    `rows`: number of rows of the model's embedding (see `JsonTokenizer`). Raises `UserError`."""
    if detect.is_file(path):
        return vocabulary_of_file(path, name, rows)[0]
    if (own := closed.load(path, name)) is not None:
        return own
    if not is_gpt2(path):
        return _by_library(path, name, rows, gpt2=False)
    gpt2 = is_gpt2_type(path)
    try:
        return load_folder(path, name, rows, gpt2=gpt2)
    except UnknownRule as error:
        if importlib.util.find_spec("tokenizers") is None:
            raise UserError(f"{error}; {_EXTRA}") from error
    try:
        return _by_library(path, name, rows, gpt2=gpt2)
    except UnknownRule as error:
        raise UserError(f"{error}; {_NO_JSON}") from error


def _by_library(path: Path, name: str, rows: int | None, *, gpt2: bool) -> Tokenizer:
    """The vocabulary through the `tokenizers` library."""
    from tui_llm.llm.adapters.vocabulary import load_json

    return load_json(path, name, rows, gpt2=gpt2)


def vocabulary_of_file(path: Path, name: str, rows: int | None = None) -> tuple[Tokenizer, str]:
    """The vocabulary of a checkpoint file of another training program, and where it is from. Raises `UserError`."""
    from tui_llm.llm.formats import described, vocabulary

    if vocabulary.has_folder_layout(path.parent):
        return load_vocabulary(path.parent, name, rows), "the vocabulary beside it"
    rows = described.described(path)[2] if rows is None else rows
    return vocabulary.load(path, detect.format_of(path), name, rows)


def load_trained(folder: Path, name: str | None = None, rows: int | None = None) -> BPETokenizer | ClosedTokenizer:
    """The vocabulary of a run's model: byte-level BPE, or characters or words. Raises `UserError`."""
    return closed.load(folder, name) or load_folder(folder, name, rows)


def save_vocabulary(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a vocabulary's files into a model folder. Raises `UserError` if it is of another kind than `load_trained`
    reads."""
    if isinstance(tokenizer, ClosedTokenizer):
        tokenizer.save(folder)
    elif isinstance(tokenizer, BPETokenizer):
        save_folder(tokenizer, folder)
    else:
        raise UserError(f"the vocabulary {tokenizer.name} can't be written as the files of a model folder")


_EXTRA = "that needs the tokenizers library: pip install 'tui-llm[transformers]'"
_NO_JSON = "open the folder with transformers and save its tokenizer, which writes a tokenizer.json with its rules"
