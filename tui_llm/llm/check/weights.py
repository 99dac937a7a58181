"""Checks of the weights: tensors, non-finite numbers, dtype, tying."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.facts.check import CheckStatus, Finding
from tui_llm.llm.adapters.description import HEADS
from tui_llm.llm.check.checked_model import CheckedModel, listed, unchecked
from tui_llm.llm.hub.open_model import choices_of, embedding_and_head
from tui_llm.llm.model.model_config import is_gpt2, read_config
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.model.stored_gpt import hugging_face_names
from tui_llm.llm.model.tensor_shapes import DTYPES

# Tensors that older versions of transformers saved with GPT-2: the causal mask.
_MASKS = re.compile(r"(^|\.)attn\.(masked_)?bias$")


def opens(model: CheckedModel) -> Finding:
    """Whether the app can open it."""
    if (error := model.refusal) is not None:
        return model.fault("opens", error)
    opened = model.loaded
    how = f"{opened.kind} of transformers" if model.by_transformers else f"{opened.kind} of tui-llm"
    predictor = opened.predictor
    shape = f"{predictor.parameters:,} parameters, {predictor.layers} layers, width {predictor.width}"
    note = f"; {opened.note}" if opened.note else ""
    return Finding("opens", CheckStatus.OK, f"as {how}: {shape}{note}")


def tensors(model: CheckedModel) -> Finding:
    """Whether tensors are missing, and whether some are not used."""
    try:
        names = model.tensors
    except UserError as error:
        return model.fault("tensors", error)
    if names and is_gpt2(model.path):
        missing, extra = _gpt2_names(model, list(names))
    elif model.refusal is not None:
        return unchecked("tensors", "the model doesn't open: see `opens`")
    else:
        missing, extra = [], list(getattr(model.loaded.predictor, "unexpected", ()))
    if missing:
        found = f"missing: {listed(missing)}"
        return Finding("tensors", CheckStatus.BROKEN, found, "download the complete model's weights again")
    if extra:
        return Finding("tensors", CheckStatus.WARNING, f"not used: {listed(extra)}; the model has no such part")
    return Finding(
        "tensors", CheckStatus.OK, f"{len(names):,} tensors, none missing, none extra" if names else "none missing"
    )


def _gpt2_names(model: CheckedModel, names: list[str]) -> tuple[list[str], list[str]]:
    """The tensors that a GPT-2 of the config's shape lacks, and those that it doesn't use. A prefix that all names share
    is ignored."""
    kind = _config(model).model_type
    wanted = {key for name, _ in _gpt2_shapes(model, len(names)) for key in hugging_face_names(name, kind)[0]}
    found = {name: next((key for key in _endings(name) if key in wanted), None) for name in names}
    missing = sorted(wanted - set(found.values()))
    if model.refusal is None:  # what opens is whole: a head that is stored only in the embedding, for one
        missing = []
    extra = [
        name for name, key in found.items() if key is None and not _MASKS.search(name) and not name.endswith(HEADS)
    ]
    return missing, extra


def _gpt2_shapes(model: CheckedModel, most: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for at, shape in enumerate(_config(model).shapes()):
        if at > 2 * most + 100:  # a config may claim a million layers
            raise UserError(f"{model.path}: config.json describes a larger model than its {most:,} tensors can fill")
        yield shape


def _config(model: CheckedModel) -> GPTConfig:
    return model.loaded.gpt.config if model.refusal is None and model.loaded.gpt else read_config(model.path)


def _endings(name: str) -> Iterator[str]:
    """`a.b.c` → `a.b.c`, `b.c`, `c`."""
    while name:
        yield name
        name = name.partition(".")[2]


def finite(model: CheckedModel) -> Finding:
    """Whether every weight is a finite number."""
    bad: list[str] = []
    count = numbers = 0
    try:
        for name, tensor in _every_tensor(model):
            count, numbers = count + 1, numbers + tensor.numel()
            wrong = int((~tensor.float().isfinite()).sum()) if tensor.is_floating_point() else 0
            if wrong:
                bad.append(f"{name} ({wrong:,} of {tensor.numel():,} numbers)")
    except UserError as error:
        return model.fault("finite weights", error)
    if bad:
        advice = "training diverged, or the file is damaged: take an earlier checkpoint, or get it again"
        return Finding("finite weights", CheckStatus.BROKEN, f"NaN or infinite: {listed(bad)}", advice)
    if not model.headers and numbers < model.loaded.predictor.parameters:
        return unchecked("finite weights", "this format's weights can't be listed; see `logits`")
    return Finding("finite weights", CheckStatus.OK, f"no NaN and no infinity in {count:,} tensors")


def _every_tensor(model: CheckedModel) -> Iterator[tuple[str, Tensor]]:
    """The tensors in the files, one at a time; if they are not safetensors, the open model's parameters."""
    for file in model.headers:
        with safe_open(file, framework="pt") as data:
            for name in data.keys():  # noqa: SIM118
                yield name, data.get_tensor(name)
    if not model.headers:
        opened = model.loaded
        yield from (opened.gpt or opened.predictor.model).named_parameters()  # type: ignore[attr-defined]


def dtype(model: CheckedModel) -> Finding:
    """The dtype of the stored weights, and of the computation."""
    try:
        kinds = Counter(DTYPES.get(tensor.dtype, tensor.dtype) for tensor in model.tensors.values())
    except UserError as error:
        return model.fault("dtype", error)
    if not kinds and model.is_gguf and model.refusal is None:
        kinds = _gguf_kinds(model)
    if not kinds:
        return unchecked("dtype", "the weights are not in safetensors")
    stored = ", ".join(f"{name} ({count} tensors)" if len(kinds) > 1 else name for name, count in kinds.most_common())
    found = f"stored as {stored}"
    if model.refusal is None:
        computed = str(next(_parameters(model)).dtype).removeprefix("torch.")
        found += f", computed in {computed}"
    said = model.config.get("dtype", model.config.get("torch_dtype"))
    if isinstance(said, str) and said in DTYPES.values() and said not in kinds and model.headers:
        return Finding("dtype", CheckStatus.WARNING, f"{found}; config.json says {said}")
    return Finding("dtype", CheckStatus.OK, found)


def _parameters(model: CheckedModel) -> Iterator[Tensor]:
    opened = model.loaded
    parameters: Iterator[Tensor] = (opened.gpt or opened.predictor.model).parameters()  # type: ignore[attr-defined]
    return parameters


def _gguf_kinds(model: CheckedModel) -> Counter[str]:
    import gguf

    reader: Any = gguf.GGUFReader(model.path)  # its header has been checked: it is open
    return Counter(tensor.tensor_type.name.lower() for tensor in reader.tensors)


def tying(model: CheckedModel) -> Finding:
    """Whether the output head is the token embedding, in the model and in the file."""
    if model.refusal is not None:
        return unchecked("tying", "the model doesn't open: see `opens`")
    embedding, head = embedding_and_head(model.loaded)
    if head is None:
        return unchecked("tying", "the model has no output head of its own")
    tied = choices_of(model.loaded, model.path).tied
    said = model.config.get("tie_word_embeddings")
    if tied:
        found = "tied: the output head is the token embedding"
        if (stored := _stored_head(model, embedding)) is not None:
            name, same = stored
            if not same:
                found = f"the file has {name}, which differs from the token embedding, but the open model ties them"
                return Finding("tying", CheckStatus.WARNING, found, "set tie_word_embeddings to false in config.json")
            found += f" (the file has it twice, {name} is equal)"
        return Finding("tying", CheckStatus.OK, found)
    same = head.shape == embedding.shape and torch.equal(head, embedding)
    found = "untied: the output head has weights of its own, " + ("equal to" if same else "different from")
    found += " the token embedding's"
    if said is True:
        return Finding("tying", CheckStatus.WARNING, f"{found}, although config.json ties them (tie_word_embeddings)")
    return Finding("tying", CheckStatus.OK, found)


def _stored_head(model: CheckedModel, embedding: Tensor) -> tuple[str, bool] | None:
    """The name of an output head in the file, and whether it equals the token embedding."""
    for file, header in model.headers.items():
        name = next((name for name in header if name.endswith(HEADS)), None)
        if name is not None:
            with safe_open(file, framework="pt") as data:
                stored = data.get_tensor(name).to(embedding.dtype)
            return name, stored.shape == embedding.shape and torch.equal(stored, embedding.detach().cpu())
    return None
