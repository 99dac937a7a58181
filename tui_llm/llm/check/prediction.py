"""Checks of what the model does with a text: logits, chat template, context."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import whole_number
from tui_llm.facts.check import CheckStatus, Finding
from tui_llm.llm.adapters import chat
from tui_llm.llm.adapters.description import stated_context
from tui_llm.llm.check.checked_model import CheckedModel, unchecked
from tui_llm.llm.check.vocabulary import NO_TRANSFORMERS, TEXT
from tui_llm.llm.tokens.tokenizer import Tokenizer

_TOKENS = 32  # compared, at most
_CLOSE = 1e-3  # the largest difference of float32 logits, relative to the largest logit
_CLOSE_HALF = 5e-2  # of logits in 16 bits
_POSITIONS = ("wpe.weight", "embed_positions.weight", "position_embeddings.weight", "position_embedding.weight")


def logits(model: CheckedModel) -> Finding:
    """Whether the logits are those of transformers' own pass over the text."""
    name = "logits"
    if model.refusal is not None:
        return unchecked(name, "the model doesn't open: see `opens`")
    opened = model.loaded
    try:
        ids = _ids(model.vocabulary)[: min(_TOKENS, opened.predictor.context)]
        ours = _ours(opened.predictor, ids)
    except UserError as error:
        return model.fault(name, error)
    if not bool(ours.isfinite().all()):
        advice = "the weights are damaged, or training diverged: take an earlier checkpoint"
        return Finding(name, CheckStatus.BROKEN, "the model predicts NaN or infinite logits", advice)
    if find_spec("transformers") is None:
        return unchecked(name, NO_TRANSFORMERS)
    if not model.by_transformers and (opened.gpt is None or not model.config):
        return unchecked(name, "transformers can't open this format")
    try:
        theirs = _theirs(model.reference, ids)
    except UserError as error:
        return Finding(name, CheckStatus.WARNING, f"transformers doesn't open what opens here: {error}")
    width = min(ours.shape[1], theirs.shape[1])
    difference = float((ours[:, :width] - theirs[:, :width]).abs().max())
    scale = max(float(theirs.abs().max()), 1e-6)
    half = next(model.reference.parameters()).dtype != torch.float32
    found = f"{len(ids)} × {width:,} logits, largest difference from transformers {difference:.1e}"
    if difference > (_CLOSE_HALF if half else _CLOSE) * scale:
        return Finding(name, CheckStatus.BROKEN, f"{found}, of {scale:.3g}", "report it, with the model's name")
    return Finding(name, CheckStatus.OK, found)


def _ids(vocabulary: Tokenizer) -> list[int]:
    """Those of the text; if the vocabulary can't write it, the first ones."""
    try:
        return vocabulary.encode(TEXT)
    except UserError:
        return list(range(min(_TOKENS, vocabulary.size)))


@torch.inference_mode()
def _ours(predictor: Any, ids: list[int]) -> Tensor:
    """Logits (T, V), in two passes, so that the second one uses the KV cache."""
    predictor.crop(0)
    half = max(1, len(ids) // 2)
    features = [predictor.run(part) for part in (ids[:half], ids[half:]) if part]
    made: Tensor = predictor.head(torch.cat(features), predictor.embedding().shape[0]).float()
    predictor.crop(0)
    return made


@torch.inference_mode()
def _theirs(model: Any, ids: list[int]) -> Tensor:
    made: Tensor = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0]
    return made.float().cpu()


def chat_template(model: CheckedModel) -> Finding:
    """Whether there is a chat template, and whether a message can be formatted with it."""
    name = "chat template"
    try:
        if model.refusal is None:
            template = model.loaded.chat
        elif model.path.is_dir():
            template = chat.template_of(model.path, model.name)
        else:
            return unchecked(name, "the model doesn't open: see `opens`")
        if template is None:
            return Finding(name, CheckStatus.OK, "none: a base model")
        if find_spec("transformers") is None:
            return unchecked(name, NO_TRANSFORMERS)
        before, message, after = template.parts("Hello")
    except UserError as error:
        return model.fault(name, error)
    if "Hello" not in message:
        return Finding(name, CheckStatus.BROKEN, "it leaves out the message", "get the template again")
    return Finding(name, CheckStatus.OK, f"a message is formatted with {len(before) + len(after)} characters around it")


def context(model: CheckedModel) -> Finding:
    """Whether the context is the same wherever it is given, and the position table has as many rows."""
    name = "context"
    stated = stated_context(model.config) if model.config else _gguf_context(model)
    opened = model.loaded.predictor.context if model.refusal is None else None
    try:
        table = {key: tensor.shape[0] for key, tensor in model.tensors.items() if key.endswith(_POSITIONS)}
    except UserError:
        table = {}
    for key, count in table.items():
        if stated is not None and stated > count:
            found = f"config.json says {stated:,} positions, but {key} has {count:,} rows"
            return Finding(name, CheckStatus.BROKEN, found, "correct config.json, or get the weights that belong to it")
    if stated is None and opened is None:
        return unchecked(name, "no file says it, and the model doesn't open")
    if stated is None:
        given = "" if model.loaded.gpt is not None else "no limit is given; "
        return Finding(name, CheckStatus.OK, f"{given}{opened:,} tokens are fed at most")
    most = whole_number(model.settings("tokenizer_config.json").get("model_max_length"), 1, 1 << 40)
    if opened is not None and opened != stated:
        found = f"the config says {stated:,} tokens, {opened:,} are fed at most"
        return Finding(name, CheckStatus.WARNING, found)
    if most is not None and most > stated:
        found = f"{stated:,} tokens, but tokenizer_config.json says {most:,} (model_max_length)"
        return Finding(name, CheckStatus.WARNING, found, "longer texts are cut to the context here")
    rows = "".join(f", and the position table has {count:,} rows" for count in list(table.values())[:1])
    return Finding(name, CheckStatus.OK, f"{stated:,} tokens{rows}")


def _gguf_context(model: CheckedModel) -> int | None:
    kind = model.gguf.get("general.architecture")
    return whole_number(model.gguf.get(f"{kind}.context_length"), 1, 1 << 40)
