"""Reading a model folder's `config.json`: Hugging Face's GPT-2 config → the shape. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tui_llm.errors import UserError
from tui_llm.files import read_json
from tui_llm.llm.shape import GPTConfig


def config_from_json(raw: Any, where: Path) -> GPTConfig:
    """Hugging Face's GPT-2 config → ours. Raises `UserError` on another architecture or a shape that can't be."""
    if not isinstance(raw, dict) or raw.get("model_type") != "gpt2":
        kind = raw.get("model_type") if isinstance(raw, dict) else None
        raise UserError(f"{where} is not a GPT-2 config (model_type {kind!r}); only GPT-2's layout can be opened")
    activation = raw.get("activation_function", "gelu_new")
    if activation not in ("gelu_new", "gelu_pytorch_tanh"):
        raise UserError(f"{where} asks for the activation {activation!r}; GPT-2's is gelu_new")
    if (
        raw.get("scale_attn_by_inverse_layer_idx")
        or raw.get("add_cross_attention")
        or not raw.get("scale_attn_weights", True)
    ):
        raise UserError(
            f"{where} asks for an attention that is not GPT-2's (scaled by layer, unscaled, or cross-attention)"
        )
    try:
        return GPTConfig(
            vocabulary=int(raw["vocab_size"]),
            context=int(raw["n_positions"] if "n_positions" in raw else raw.get("n_ctx", 1024)),
            layers=int(raw["n_layer"]),
            heads=int(raw["n_head"]),
            width=int(raw["n_embd"]),
            inner=int(raw.get("n_inner") or 0),
            epsilon=float(raw.get("layer_norm_epsilon", 1e-5)),
            tied=bool(raw.get("tie_word_embeddings", True)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} does not describe a GPT-2: {error}") from error


def read_config(folder: Path) -> GPTConfig:
    """The shape of the model in `folder`. Raises `UserError` where there is none."""
    path = folder / "config.json"
    if not folder.is_dir():
        raise UserError(f"there is no model folder {folder}; `tui-llm models` lists what can be opened")
    if not path.is_file():
        raise UserError(f"{folder} is not a model folder: it has no config.json")
    return config_from_json(read_json(path), path)


def is_gpt2(path: Path) -> bool:
    """Whether our own model can be it: GPT-2's layout, with GPT-2's activation and attention. True as well for what is no
    model folder at all, which the checkpoint's reader tells best."""
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


def _other_gpt2(raw: dict[str, Any]) -> bool:
    """A GPT-2 that isn't quite: transformers has these too."""
    return raw.get("activation_function", "gelu_new") not in ("gelu_new", "gelu_pytorch_tanh") or bool(
        raw.get("scale_attn_by_inverse_layer_idx") or not raw.get("scale_attn_weights", True)
    )
