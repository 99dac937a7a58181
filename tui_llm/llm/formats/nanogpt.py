"""nanoGPT's checkpoints (`ckpt.pt`): the weights under `model`, the shape under `model_args`.

Its GELU is exact since May 2023; before January 2023, when `model_args` had no `bias` yet, it was the approximation
with tanh. Without biases, zeros take their place, which changes no number.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import whole_number
from tui_llm.llm.formats import archive, gpt_weights
from tui_llm.llm.model import shards
from tui_llm.llm.model.layouts import MOST_HEADS, MOST_LAYERS, MOST_ROWS, MOST_WIDTH
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.model_config import prefix_of
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.model.shards import StoredTensor

_SIZES = {"vocab_size": MOST_ROWS, "block_size": MOST_ROWS, "n_layer": MOST_LAYERS, "n_head": MOST_HEADS, "n_embd": MOST_WIDTH}  # fmt: skip
_MASK = re.compile(r"h\.\d+\.attn\.(?:bias|masked_bias)")  # buffers, not weights: the causal mask
_HEAD, _EMBEDDING = "lm_head.weight", "wte.weight"


def load(path: Path, device: torch.device | str = "cpu") -> tuple[GPT, str]:
    """The model, in float32, and a line about it. Raises `UserError`."""
    with archive.opened(path) as found:
        stored = _stored(found)
        config, biases = _config(found, stored, path)
        gpt_weights.check_shapes(config, {name: one.info.shape for name, one in stored.items()}, path, biases=biases)
        if wrong := next((name for name, one in stored.items() if not one.info.dtype.startswith(("F", "BF"))), None):
            raise UserError(
                f"{path}: {wrong} is of type {stored[wrong].info.dtype}; weights in floating point are needed"
            )
        names = {name: file_name for file_name, name in _names(found).items()}
        try:
            with safe_open(found.path, framework="pt") as file:

                def get(name: str) -> Tensor | None:
                    key = names.get(name)
                    return None if key is None else file.get_tensor(found.same.get(key, key))

                model = gpt_weights.build(config, get, path, device)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} can't be read ({error}); get it again") from error
    return model, _note(found, config, biases)


def _names(found: archive.Archive) -> dict[str, str]:
    """Name in the file → Hugging Face's name, for every tensor but the masks."""
    everything = [*found.tensors, *found.same]
    prefix = prefix_of(everything)
    bare = {name: name.removeprefix(prefix).removeprefix("transformer.") for name in everything}
    return {name: own for name, own in bare.items() if not _MASK.fullmatch(own)}


def _stored(found: archive.Archive) -> dict[str, StoredTensor]:
    """Hugging Face's name → tensor; without a head that is the token embedding."""
    stored = {
        own: StoredTensor(found.path, found.tensors[found.same.get(name, name)]) for name, own in _names(found).items()
    }
    if _HEAD in stored and _EMBEDDING in stored and shards.equal(stored[_HEAD], stored[_EMBEDDING]):
        del stored[_HEAD]
    return stored


def _config(found: archive.Archive, stored: dict[str, StoredTensor], path: Path) -> tuple[GPTConfig, bool]:
    """The shape, and whether the model has biases."""
    settings = found.settings
    if settings is None or _EMBEDDING not in stored:
        raise UserError(
            f"{path} is not a checkpoint of nanoGPT, whose ckpt.pt has `model` and `model_args`; nothing else in .pt can be "
            "opened (nanochat's are named model_STEP.pt)"
        )
    sizes = {name: whole_number(settings.get(name), 1, most) for name, most in _SIZES.items()}
    if wrong := next((name for name, size in sizes.items() if size is None), None):
        raise UserError(
            f"{path}: its model_args have no usable {wrong} ({str(settings.get(wrong))[:40]}); get it again"
        )
    biases = settings.get("bias", True)
    there = "ln_f.bias" in stored
    if not isinstance(biases, bool) or biases != there:
        raise UserError(
            f"{path}: its model_args say bias {str(biases)[:40]}, but its weights have {'' if there else 'no '}biases; "
            "the file is damaged"
        )
    try:
        config = GPTConfig(
            vocabulary=sizes["vocab_size"] or 0,
            context=sizes["block_size"] or 0,
            layers=sizes["n_layer"] or 0,
            heads=sizes["n_head"] or 0,
            width=sizes["n_embd"] or 0,
            tied=_HEAD not in stored,
            exact_gelu="bias" in settings,
        )
    except ValueError as error:
        raise UserError(f"{path} does not describe a GPT-2: {error}") from error
    return config, biases


def _note(found: archive.Archive, config: GPTConfig, biases: bool) -> str:
    step = "" if found.step is None else f" at step {found.step:,}"
    gelu = "exact GELU, as nanoGPT since May 2023" if config.exact_gelu else "GELU with tanh, as nanoGPT before 2023"
    return f"nanoGPT checkpoint{step}: {gelu}" + (
        ("" if biases else "; without biases: zeros, which are counted as parameters")
        + ("" if config.tied else "; lm_head.weight differs from the token embedding: both are kept")
    )
