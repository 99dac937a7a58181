"""Small random models over bytes, as folders."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens import tokenizer, vocabulary_folder


def save_byte_model(
    path: Path, shape: GPTConfig, seed: int = 3, *, padding: float | None = None, broken: bool = False
) -> Path:
    """A model of that shape in the folder `path`. With `padding`, its weights are larger, and the output rows behind the
    vocabulary are filled with that: they would have the largest logits if they were not excluded. If `broken`, all its
    logits are NaN."""
    torch.manual_seed(seed)
    model = GPT(shape)
    if padding is not None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
            model.head.weight[257:] = padding
    if broken:
        with torch.no_grad():
            model.norm.weight.fill_(math.nan)
    vocabulary = tokenizer.byte_level()
    checkpoint.save(model, path, end_of_text=vocabulary.end_of_text)
    vocabulary_folder.save_folder(vocabulary, path)
    return path
