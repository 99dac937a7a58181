"""Model folders in Hugging Face's GPT-2 layout: read `config.json` and `model.safetensors` (or its shards), and write them.

Compatible with `transformers.AutoModelForCausalLM.from_pretrained` and `save_pretrained`. Weights are read from
safetensors only, never from pickles.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tui_llm.common import memory, storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_aside, write_json
from tui_llm.llm.model import shards, stored_gpt
from tui_llm.llm.model.device import free_bytes
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.model.stored_gpt import StoredGPT, hugging_face_name

WEIGHTS = shards.WHOLE


def config_to_json(config: GPTConfig, *, end_of_text: int | None, dtype: torch.dtype) -> dict[str, Any]:
    """The content of `config.json` for a GPT2LMHeadModel; the opposite of `model_config.config_from_json`."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu" if config.exact_gelu else "gelu_new",
        "vocab_size": config.vocabulary,
        "n_positions": config.context,
        "n_ctx": config.context,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_embd": config.width,
        "n_inner": config.inner or None,
        "layer_norm_epsilon": config.epsilon,
        "initializer_range": 0.02,
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": config.tied,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


def load(folder: Path, device: torch.device | str = "cpu") -> GPT:
    """Load a model folder: float32, in eval mode, without gradients. Raises `UserError` if it can't be loaded."""
    stored = stored_gpt.find(folder)
    memory.check(stored_gpt.need(stored.config), free_bytes(torch.device(device)), f"opening {folder}")
    with memory.enough(f"open {folder}"):
        return _filled(stored, device)


def from_arrays(config: GPTConfig, arrays: Mapping[str, npt.NDArray[np.float32]], device: torch.device | str) -> GPT:
    """The model with these weights, by our parameter names; as `load` returns it. May share their memory."""
    with torch.device("meta"):
        model = GPT(config)
    for name, parameter in list(model.named_parameters()):
        _put(model, name, torch.from_numpy(arrays[name]).contiguous().to(device), parameter)
    return _finished(model)


def _filled(stored: StoredGPT, device: torch.device | str) -> GPT:
    with torch.device("meta"):
        model = GPT(stored.config)
    with ExitStack() as stack:
        files: dict[Path, Any] = {}
        for name, parameter in list(model.named_parameters()):
            one = stored.tensors[name]
            path = one.tensor.path
            try:
                if path not in files:
                    files[path] = stack.enter_context(safe_open(path, framework="pt"))
                tensor = files[path].get_tensor(one.key).to(torch.float32)
            except (SafetensorError, OSError) as error:
                raise UserError(f"{path} can't be read ({error}); it may be cut short: get it again") from error
            _put(model, name, (tensor.T if one.transposed else tensor).contiguous().to(device), parameter)
    return _finished(model)


def _finished(model: GPT) -> GPT:
    if model.config.tied:
        model.head.weight = model.tokens.weight
    return model.eval().requires_grad_(False)


def _put(model: GPT, name: str, tensor: Tensor, old: torch.nn.Parameter) -> None:
    module, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(module), leaf, torch.nn.Parameter(tensor, requires_grad=old.requires_grad))


def save(
    model: GPT,
    folder: Path,
    *,
    end_of_text: int | None = None,
    dtype: torch.dtype = torch.float32,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, each atomically."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.weights():
        key, transposed = hugging_face_name(name)
        tensor = parameter.detach().to("cpu", dtype)
        full = key if key.startswith("lm_head") else f"transformer.{key}"
        tensors[full] = (tensor.T if transposed else tensor).contiguous()
    write_tensors(folder / WEIGHTS, tensors)
    write_json(
        folder / "config.json",
        {**config_to_json(model.config, end_of_text=end_of_text, dtype=dtype), **(extra or {})},
    )


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file atomically. Raises `UserError` if the disk is full, and leaves no partial file."""

    def write(part: Path) -> None:
        try:
            storage.by_library(part, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
        except SafetensorError as error:  # safetensors reports I/O errors this way
            raise OSError(str(error)) from error

    write_aside(path, write)
