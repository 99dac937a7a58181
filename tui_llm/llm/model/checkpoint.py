"""Model folders in Hugging Face's GPT-2 layout, or one of `layouts.py`: read `config.json` and `model.safetensors` (or its
shards), and write them.

Compatible with `transformers.AutoModelForCausalLM.from_pretrained` and `save_pretrained`. Weights are read from
safetensors only, never from pickles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tui_llm.common import memory, storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_aside, write_json
from tui_llm.common.foreign_files import open_foreign
from tui_llm.llm.model import fast_decode, layouts, shards, stored_gpt, switches
from tui_llm.llm.model.device import free_bytes
from tui_llm.llm.model.kernels import Kernel
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.model.shards import StoredTensor
from tui_llm.llm.model.stored_gpt import StoredGPT, StoredParameter, hugging_face_names

WEIGHTS = shards.WHOLE


def config_to_json(config: GPTConfig, *, end_of_text: int | None, dtype: torch.dtype) -> dict[str, Any]:
    """The content of `config.json` for the class of transformers that holds the model's switches, GPT2LMHeadModel without
    any; the opposite of `model_config.config_from_json`. Raises `UserError` if no class holds them."""
    kind = str(dtype).removeprefix("torch.")
    if config.model_type != "gpt2":
        return layouts.to_json(config, end_of_text, kind)
    switches.layout_of(switches.names_of(config))
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "relu2" if config.relu2 else "gelu" if config.exact_gelu else "gelu_new",
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
        "torch_dtype": kind,
    }


def load(folder: Path, device: torch.device | str = "cpu") -> GPT:
    """Load a model folder: float32, in eval mode, without gradients. Raises `UserError` if it can't be loaded."""
    stored = stored_gpt.find(folder)
    memory.check(stored_gpt.need(stored.config), free_bytes(torch.device(device)), f"opening {folder}")
    with memory.enough(f"open {folder}"):
        return _filled(stored, device)


def load_prepared(folder: Path, device: torch.device | str, weights: str) -> tuple[GPT, Kernel]:
    """The same, prepared by `fast_decode.prepare` for the format `weights`, and the kernel that it has chosen. What becomes int8 is read and converted one
    matrix at a time, large ones in parts, so that memory never holds the weights in float32."""
    if weights != "int8":
        model = load(folder, device)
        return model, fast_decode.prepare(model, weights)
    stored = stored_gpt.find(folder)
    memory.check(stored_gpt.need(stored.config, 1), free_bytes(torch.device(device)), f"opening {folder}")
    with memory.enough(f"open {folder}"):
        model = _filled(stored, device, skip=fast_decode.is_reduced)
        place = torch.device(device)
        return model, fast_decode.prepare(model, weights, lambda name: StoredMatrix(stored.tensors[name]), place=place)


class StoredMatrix:
    """A weight (O, C) in its file: `matrix[a:b]` reads these rows as a float32 tensor. Raises `UserError`."""

    def __init__(self, stored: StoredParameter) -> None:
        self._stored = stored
        self._whole: Tensor | None = None
        shapes = [one.info.shape for one in stored.tensors]
        rows = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        self.shape = rows[::-1] if stored.transposed else rows

    def __getitem__(self, rows: slice) -> Tensor:
        if (
            self._stored.transposed or self._stored.below
        ):  # its rows are columns there, or in several places: read at once
            if self._whole is None:
                self._whole = _read(self._stored)
            return self._whole[rows]
        start, stop, _ = rows.indices(self.shape[0])
        return _read(self._stored, start, stop)


def from_arrays(config: GPTConfig, arrays: Mapping[str, npt.NDArray[np.float32]], device: torch.device | str) -> GPT:
    """The model with these weights, by our parameter names; as `load` returns it. May share their memory."""
    with torch.device("meta"):
        model = GPT(config)
    for name, parameter in list(model.named_parameters()):
        _put(model, name, torch.from_numpy(arrays[name]).contiguous().to(device), parameter)
    return _finished(model)


def _filled(stored: StoredGPT, device: torch.device | str, skip: Callable[[str], bool] = lambda name: False) -> GPT:
    """The model with its weights; parameters that are to be skipped stay on the meta device."""
    with torch.device("meta"):
        model = GPT(stored.config)
    # What is copied, transposed, is read into one place: glibc would keep the freed memory of each.
    most = max((one.bytes for one in stored.tensors.values() if one.transposed), default=0)
    place = torch.empty(most, dtype=torch.uint8)
    for name, parameter in list(model.named_parameters()):
        if not skip(name):
            one = stored.tensors[name]
            tensor = _read(one, place=place) if one.transposed else _read(one)
            _put(model, name, tensor.contiguous().to(device), parameter)
    return _finished(model)


_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}  # fmt: skip


def _read(parameter: StoredParameter, start: int = 0, stop: int | None = None, place: Tensor | None = None) -> Tensor:
    """A parameter in float32, in our order of dimensions; of one that is neither transposed nor in several places, rows
    `start` to `stop`. It may be in the bytes `place`, if there are any. Read, not mapped: mapped pages stay in memory beside
    the copies that are made of them."""
    if parameter.below:
        return torch.cat([_read_tensor(tensor) for tensor in parameter.tensors])
    tensor = _read_tensor(parameter.tensor, start, stop, place)
    return tensor.T if parameter.transposed else tensor


def _read_tensor(stored: StoredTensor, start: int = 0, stop: int | None = None, place: Tensor | None = None) -> Tensor:
    info, path = stored.info, stored.path
    if (dtype := _TYPES.get(info.dtype)) is None:
        raise UserError(f"{path}: its weights are of type {info.dtype}; save them as F32, F16 or BF16")
    rows, rest = info.shape[0], info.shape[1:]
    stop = rows if stop is None else stop
    size = info.bytes // max(1, rows)
    count = (stop - start) * size
    bytes = torch.empty(count, dtype=torch.uint8) if place is None else place[:count]
    buffer: Any = bytes.numpy()
    try:
        with open_foreign(path) as file:
            file.seek(info.begin + start * size)
            read = file.readinto(buffer)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error}); it may be cut short: get it again") from error
    if read != count:
        raise UserError(f"{path} can't be read to its end; it may be cut short: get it again")
    return bytes.view(dtype).view(stop - start, *rest).to(torch.float32)


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
    config, tensors = model.config, dict[str, Tensor]()
    described = config_to_json(config, end_of_text=end_of_text, dtype=dtype)
    for name, parameter in model.weights():
        keys, transposed = hugging_face_names(name, config.model_type)
        tensor = parameter.detach().to("cpu", dtype)
        if config.model_type in layouts.LAYOUTS:
            parts = tensor.split(layouts.split_rows(config)) if len(keys) > 1 else (tensor,)
            made = {layouts.full_name(key): part.contiguous() for key, part in zip(keys, parts, strict=True)}
        else:
            full = keys[0] if keys[0].startswith("lm_head") else f"transformer.{keys[0]}"
            made = {full: (tensor.T if transposed else tensor).contiguous()}
        tensors |= made
    write_tensors(folder / WEIGHTS, tensors)
    write_json(folder / "config.json", {**described, **(extra or {})})


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file atomically. Raises `UserError` if the disk is full, and leaves no partial file."""

    def write(part: Path) -> None:
        try:
            storage.by_library(part, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
        except SafetensorError as error:  # safetensors reports I/O errors this way
            raise OSError(str(error)) from error

    write_aside(path, write)
