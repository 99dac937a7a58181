"""Open a model folder or file: GPT-2's layout in our own `llm/model/model.py`, any other through `adapters`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tui_llm.common import memory
from tui_llm.common.errors import UserError
from tui_llm.facts.model import ModelChoices
from tui_llm.llm.adapters import description
from tui_llm.llm.hub.choices import of_vocabulary
from tui_llm.llm.hub.hub import load_vocabulary
from tui_llm.llm.model import checkpoint, fast_decode
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.model_config import is_gpt2
from tui_llm.llm.model.predictor import Predictor
from tui_llm.llm.tokens import tokenizer

if TYPE_CHECKING:
    from tui_llm.llm.adapters.chat import ChatTemplate


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """`gpt` is None if the model runs through transformers; `kind` is its architecture."""

    predictor: Predictor
    tokenizer: tokenizer.Tokenizer
    gpt: GPT | None = None
    chat: ChatTemplate | None = None
    kind: str = "gpt2"


def open_model(path: Path, name: str, place: torch.device, weights: str = "fp32") -> LoadedModel:
    """`weights`: the weight format (`weight_names.WEIGHTS`). Raises `UserError` if it can't be opened, or memory is too
    low."""
    with memory.enough(f"open {name}"):
        return _opened(path, name, place, weights)


def _opened(path: Path, name: str, place: torch.device, weights: str) -> LoadedModel:
    if not is_gpt2(path):
        if weights != "fp32":
            raise UserError(
                f"{name} runs through transformers, which keeps its own weights; open it with --weights fp32"
            )
        from tui_llm.llm.adapters.foreign import open_foreign

        predictor, vocabulary, chat = open_foreign(path, name, place)
        return LoadedModel(
            predictor, vocabulary, None, chat, str(getattr(predictor.model.config, "model_type", "other"))
        )
    gpt = checkpoint.load(path, place)
    own = load_vocabulary(path, name, gpt.config.vocabulary)
    _check_rows(path, own, gpt)
    from tui_llm.llm.adapters.chat import template_of

    return LoadedModel(fast_decode.predictor(gpt, weights), own, gpt, template_of(path, name))


def open_gpt(path: Path, name: str, place: torch.device) -> tuple[GPT, tokenizer.BPETokenizer]:
    """A GPT-2 model and its vocabulary. Raises `UserError` if it is none, or if model and vocabulary don't match."""
    gpt, own = checkpoint.load(path, place), tokenizer.load_folder(path, name)
    _check_rows(path, own, gpt)
    return gpt, own


def choices_of(model: LoadedModel, path: Path) -> ModelChoices:
    """What its numbers depend on beside weights and text; `path` is its folder or file."""
    embedding, head = embedding_and_head(model)
    return of_vocabulary(
        model.tokenizer,
        tied=None if head is None else head is embedding or head.data_ptr() == embedding.data_ptr(),
        stored=description.stored_dtype(path),
        computed="float32" if model.gpt is not None else str(embedding.dtype).removeprefix("torch."),
        padding=max(0, model.predictor.vocabulary - model.tokenizer.size),
        chat=model.chat is not None,
    )


def embedding_and_head(model: LoadedModel) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weights of the token embedding and of the output head; None if there is no such module."""
    if model.gpt is not None:
        return model.gpt.tokens.weight, model.gpt.head.weight
    library: Any = model.predictor.model  # type: ignore[attr-defined]
    head = library.get_output_embeddings()
    return library.get_input_embeddings().weight, None if head is None else head.weight


def _check_rows(path: Path, own: tokenizer.Tokenizer, gpt: GPT) -> None:
    if own.size > gpt.config.vocabulary:
        raise UserError(
            f"{path}: its vocabulary has {own.size} tokens, its model only {gpt.config.vocabulary}; "
            "they are of different models"
        )
