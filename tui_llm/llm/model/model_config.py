"""Parse a model folder's `config.json`: Hugging Face's GPT-2 config, or one of `layouts.py` → GPTConfig. No torch here."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_json, whole_number
from tui_llm.llm.model import layouts, shards
from tui_llm.llm.model.layouts import MOST_HEADS, MOST_LAYERS, MOST_ROWS, MOST_WIDTH, shown
from tui_llm.llm.model.shape import GPTConfig

GGUF = ".gguf"


# GPT-2's name of a size → the general name that transformers maps to it (GPT2Config.attribute_map, 5.24).
GENERAL_NAMES = {
    "n_positions": "max_position_embeddings",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
}

# The first two are the same approximation with tanh.
ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh", "gelu", "relu2")


def config_from_json(raw: Any, where: Path) -> GPTConfig:
    """Convert Hugging Face's config of a GPT-2, or of a model with architecture switches. Raises `UserError` on another
    architecture or an invalid shape."""
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if isinstance(kind, str) and kind in layouts.LAYOUTS:
        try:
            return layouts.from_json(raw)
        except ValueError as error:
            raise UserError(f"{where} is of a {kind} that tui-llm's own model is not: {error}") from error
    if not isinstance(raw, dict) or kind != "gpt2":
        raise UserError(f"{where} is not a GPT-2 config (model_type {shown(kind)}); only GPT-2's layout can be opened")
    raw = _with_own_names(raw, where)
    activation = raw.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        raise UserError(f"{where} asks for the activation {shown(activation)}; GPT-2's is gelu_new")
    try:
        if (
            _flag(raw, "scale_attn_by_inverse_layer_idx", False)
            or _flag(raw, "add_cross_attention", False)
            or not _flag(raw, "scale_attn_weights", True)
        ):
            raise UserError(
                f"{where} asks for an attention that is not GPT-2's (scaled by layer, unscaled, or cross-attention)"
            )
        return GPTConfig(
            vocabulary=_size(raw, "vocab_size", MOST_ROWS),
            context=_size(raw, "n_positions" if "n_positions" in raw else "n_ctx", MOST_ROWS, 1024),
            layers=_size(raw, "n_layer", MOST_LAYERS),
            heads=_size(raw, "n_head", MOST_HEADS),
            width=_size(raw, "n_embd", MOST_WIDTH),
            inner=_size(raw, "n_inner", MOST_ROWS) if raw.get("n_inner") is not None else 0,
            epsilon=_epsilon(raw.get("layer_norm_epsilon", 1e-5)),
            tied=_flag(raw, "tie_word_embeddings", True),
            exact_gelu=activation == "gelu",
            relu2=activation == "relu2",
        )
    except ValueError as error:
        raise UserError(f"{where} does not describe a GPT-2: {error}") from error


def _with_own_names(raw: dict[str, Any], where: Path) -> dict[str, Any]:
    """The config with GPT-2's names where it uses the general ones. Raises `UserError` if the two names of a size
    contradict each other: which one is meant can't be told."""
    named = dict(raw)
    for own, general in GENERAL_NAMES.items():
        if general not in raw:
            continue
        if own in raw and (raw[own] != raw[general] or type(raw[own]) is not type(raw[general])):
            raise UserError(
                f"{where} says {own} {shown(raw[own])} and {general} {shown(raw[general])}, two names of one size: "
                "remove the wrong one"
            )
        named[own] = raw[general]
    return named


def _size(raw: dict[str, Any], name: str, most: int, default: int | None = None) -> int:
    """An integer from 1 to `most`; bool, float and str are rejected. Raises ValueError."""
    if name not in raw and default is None:
        raise ValueError(f"it has no {name}")
    value = raw.get(name, default)
    size = whole_number(value, 1, most)
    if size is None:
        raise ValueError(f"{name} is {shown(value)}, not an integer from 1 to {most:,}")
    return size


def _epsilon(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 or not math.isfinite(value):
        raise ValueError(f"layer_norm_epsilon is {shown(value)}, not a number from 0 to 1")
    return float(value)


def _flag(raw: dict[str, Any], name: str, default: bool) -> bool:
    value = raw.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {shown(value)}, neither true nor false")
    return value


def read_config(folder: Path) -> GPTConfig:
    """The shape of the model in `folder`. Raises `UserError` if there is no valid config.

    A head that differs from the token embedding is untied, whatever the config says, as in transformers 5.
    """
    config = _config(folder)
    return replace(config, tied=False) if config.tied and _has_own_head(folder) else config


def untied_note(folder: Path) -> str:
    """A line that says that the weights are untied although the config ties them, or is silent; else empty."""
    if not _config(folder).tied or not _has_own_head(folder):
        return ""
    return (
        "lm_head.weight differs from the token embedding, which config.json says is the head too: both are kept, as "
        "transformers 5 does; transformers 4 uses the embedding alone"
    )


def _config(folder: Path) -> GPTConfig:
    path = folder / "config.json"
    if folder.is_file():
        raise UserError(f"{folder} is a file; this needs a model folder with config.json and model.safetensors")
    if not folder.is_dir():
        raise UserError(f"there is no model folder {folder}; `tui-llm models` lists what can be opened")
    if not path.is_file():
        raise UserError(f"{folder} is not a model folder: it has no config.json")
    return config_from_json(read_json(path), path)


def _has_own_head(folder: Path) -> bool:
    """Whether the weight files have an output head with other numbers than the token embedding's."""
    try:
        tensors = shards.read_tensors(folder)
        head = prefix_of(tensors) + "lm_head.weight"
        names = ("transformer.wte.weight", "wte.weight", "model.embed_tokens.weight", "embed_tokens.weight")
        embeddings = [prefix_of(tensors) + name for name in names]
        own = next((tensors[name] for name in embeddings if name in tensors), None)
        return head in tensors and own is not None and not shards.equal(tensors[head], own)
    except UserError:  # missing or damaged weights: loading them reports it
        return False


def prefix_of(names: Collection[str]) -> str:
    """What stands before every name: `_orig_mod.` if a compiled model was saved, `module.` if one under
    DistributedDataParallel was; empty if they have none in common."""
    embedding = next((name for name in names if name.endswith(("wte.weight", "embed_tokens.weight"))), "")
    prefix = embedding.removesuffix("wte.weight").removesuffix("transformer.")
    prefix = prefix.removesuffix("embed_tokens.weight").removesuffix("model.")
    return prefix if all(name.startswith(prefix) for name in names) else ""


def is_gpt2(path: Path) -> bool:
    """Whether our own GPT class can load it: GPT-2's layout, activation and attention, or a layout of `layouts.py` whose
    config has nothing that ours does not compute. Also True if it is no model folder at all: loading it then gives the
    better error message."""
    if path.suffix == ".gguf" and path.is_file():
        return False
    config = path / "config.json"
    if not config.is_file():
        return True
    raw = read_json(config)
    if not isinstance(raw, dict) or raw.get("model_type") is None:
        return True
    try:
        config_from_json(raw, config)
    except UserError:
        return raw.get("model_type") == "gpt2" and not _other_gpt2(raw)
    return True


def is_gpt2_type(path: Path) -> bool:
    """Whether the config of a model folder is GPT-2's, so that transformers takes GPT-2's tokenizer where no file names
    one; True if there is none."""
    config = path / "config.json"
    raw = read_json(config) if config.is_file() else None
    return not isinstance(raw, dict) or raw.get("model_type") in (None, "gpt2")


def _other_gpt2(raw: dict[str, Any]) -> bool:
    """Whether it is a GPT-2 variant that only transformers supports."""
    return raw.get("activation_function", "gelu_new") not in ACTIVATIONS or bool(
        raw.get("scale_attn_by_inverse_layer_idx") or not raw.get("scale_attn_weights", True)
    )
