"""Load the vocabulary that a training run uses."""

from __future__ import annotations

from tui_llm.llm.hub.lookup import vocabulary_folder
from tui_llm.llm.tokens.catalog import load_named
from tui_llm.llm.tokens.tokenizer import BPETokenizer, byte_level, load_folder


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
