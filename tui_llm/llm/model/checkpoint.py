"""Model folders in Hugging Face's GPT-2 layout: read `config.json` and `model.safetensors` (or its shards), and write them.

Compatible with `transformers.AutoModelForCausalLM.from_pretrained` and `save_pretrained`. Weights are read from
safetensors only, never from pickles.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tui_llm.common import memory, storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_aside, write_json
from tui_llm.llm.model import shards
from tui_llm.llm.model.device import free_bytes
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.model_config import prefix_of, read_config
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.model.shards import StoredTensor

WEIGHTS = shards.WHOLE

# Our name of a block's module → Hugging Face's. Its "Conv1D" weights are transposed compared with nn.Linear: (in, out).
_BLOCK = {
    "norm1": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "norm2": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
_TOP = {"tokens.weight": "wte.weight", "positions.weight": "wpe.weight", "norm.weight": "ln_f.weight",
        "norm.bias": "ln_f.bias", "head.weight": "lm_head.weight"}  # fmt: skip


def hugging_face_name(name: str) -> tuple[str, bool]:
    """The name of a parameter of `GPT` in Hugging Face's GPT-2 (without `transformer.`), and whether that tensor is
    stored transposed."""
    if name in _TOP:
        return _TOP[name], False
    _, layer, rest = name.split(".", 2)
    module, _, leaf = rest.rpartition(".")
    return f"h.{layer}.{_BLOCK[module]}.{leaf}", leaf == "weight" and not module.startswith("norm")


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
    config = read_config(folder)
    tensors = shards.read_tensors(folder)
    if not tensors:
        raise UserError(f"{folder} has {_no_weights(folder)}")
    names = _check_tensors(folder, tensors, config)
    memory.check(_need(config), free_bytes(torch.device(device)), f"opening {folder}")
    with memory.enough(f"open {folder}"):
        return _filled(tensors, config, names, device)


def _no_weights(folder: Path) -> str:
    if (folder / WEIGHTS).is_file():
        return f"no tensor in its {WEIGHTS}; get it again"
    if pickles := sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt*")):
        return f"only {pickles[0]}, a pickle, which can run code and is never opened; convert it to safetensors"
    if any(folder.glob("model-*-of-*.safetensors")):
        return f"shards of its weights, but no {shards.INDEX}, which lists them; download the complete model"
    return f"no {WEIGHTS}"


def _filled(
    tensors: dict[str, StoredTensor],
    config: GPTConfig,
    names: dict[str, tuple[str, bool]],
    device: torch.device | str,
) -> GPT:
    with torch.device("meta"):
        model = GPT(config)
    with ExitStack() as stack:
        files: dict[Path, Any] = {}
        for name, parameter in list(model.named_parameters()):
            key, transposed = names[name]
            path = tensors[key].path
            try:
                if path not in files:
                    files[path] = stack.enter_context(safe_open(path, framework="pt"))
                tensor = files[path].get_tensor(key).to(torch.float32)
            except (SafetensorError, OSError) as error:
                raise UserError(f"{path} can't be read ({error}); it may be cut short: get it again") from error
            _put(model, name, (tensor.T if transposed else tensor).contiguous().to(device), parameter)
    if config.tied:
        model.head.weight = model.tokens.weight
    return model.eval().requires_grad_(False)


def _need(config: GPTConfig) -> int:
    """Bytes of memory to load and run the model: its weights and its KV cache in float32, plus two copies of a matrix
    while it is transposed."""
    cache = 2 * config.layers * config.context * config.width
    return 4 * (config.parameters() + cache + 3 * config.width * config.hidden)


def _check_tensors(folder: Path, tensors: dict[str, StoredTensor], config: GPTConfig) -> dict[str, tuple[str, bool]]:
    """Our parameter name → its name in the weight files, and whether it is stored transposed. Compares every tensor's
    shape with the config's before any memory is allocated, so that a config with wrong sizes can't exhaust the memory.
    Raises `UserError`."""
    prefix = prefix_of(tensors)
    found: dict[str, tuple[str, bool]] = {}
    for name, shape in config.shapes():  # stops at the first missing one: a config may claim a million layers
        key, transposed = found[name] = _find(name, tensors, folder, prefix)
        path, tensor, wanted = tensors[key].path, tensors[key].info, shape[::-1] if transposed else shape
        if tensor.shape != wanted:
            raise UserError(
                f"{path}: {key} is {list(tensor.shape)}, but config.json says {list(wanted)}; they are of different models"
            )
        if not tensor.dtype.startswith(("F", "BF")):
            raise UserError(f"{path}: {key} is of type {tensor.dtype}; weights in floating point are needed")
    return found


def _find(name: str, tensors: dict[str, StoredTensor], folder: Path, prefix: str) -> tuple[str, bool]:
    key, transposed = hugging_face_name(name)
    for candidate in (f"{prefix}transformer.{key}", prefix + key):  # the original GPT-2 folders have no prefix
        if candidate in tensors:
            return candidate, transposed
    where = folder / WEIGHTS if (folder / WEIGHTS).is_file() else folder
    raise UserError(f"{where} has no tensor {key}; it is not a whole GPT-2")


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
