"""llama2.c's checkpoints (`.bin`) as transformers' Llama.

Settings that the files don't contain are llama2.c's own: rotary base 10,000, RMSNorm epsilon 1e-5.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tui_llm.common import memory
from tui_llm.common.errors import UserError, message_line
from tui_llm.common.foreign_files import open_foreign
from tui_llm.llm.adapters.causal import CausalPredictor
from tui_llm.llm.adapters.foreign import transformers_library
from tui_llm.llm.formats.llama2_c_header import Llama2CHeader, read_header
from tui_llm.llm.model.device import free_bytes

_BASE, _EPSILON = 10000.0, 1e-5


def load(path: Path, name: str, place: torch.device) -> tuple[CausalPredictor, str]:
    """The model as a Predictor, and a line about it. Raises `UserError`."""
    header = read_header(path)
    library = transformers_library(name)
    memory.check(8 * header.numbers(), free_bytes(place), f"opening {path}")
    tensors = _tensors(path, header)
    if (tables := tensors.pop("rotary", None)) is not None:
        _check_rotary(tables, header, path)
    config = library.LlamaConfig(
        vocab_size=header.vocabulary, hidden_size=header.width, intermediate_size=header.hidden,
        num_hidden_layers=header.layers, num_attention_heads=header.heads, num_key_value_heads=header.kv_heads,
        max_position_embeddings=header.context, rms_norm_eps=_EPSILON, tie_word_embeddings=header.shared,
        rope_parameters={"rope_type": "default", "rope_theta": _BASE}, bos_token_id=1, eos_token_id=2, pad_token_id=None,
    )  # fmt: skip
    note = f"llama2.c checkpoint, version {header.version}: rotary base 10,000 and RMSNorm epsilon 1e-5, as llama2.c has them"
    return CausalPredictor(built(library, config, tensors, path, place), name), note


def built(library: Any, config: Any, tensors: dict[str, Tensor], path: Path, place: torch.device) -> Any:
    """transformers' model of `config` with these weights in float32. Raises `UserError` if they don't fit it."""
    try:
        model = library.AutoModelForCausalLM.from_config(
            config, trust_remote_code=False, attn_implementation="sdpa", dtype=torch.float32
        )
        found = model.load_state_dict(
            {key: tensor.float() for key, tensor in tensors.items()}, strict=False, assign=True
        )
        model.tie_weights()
        lacking = set(found.missing_keys) - ({"lm_head.weight"} if config.tie_word_embeddings else set())
        if lacking or found.unexpected_keys:
            wrong = sorted([*lacking, *found.unexpected_keys])[0]
            raise UserError(f"{path}: the tensor {wrong[:80]} is missing, or one too many; get it again")
        return model.to(place).eval().requires_grad_(False)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"transformers {library.__version__} can't open {path}: {message_line(error)}") from error


def _tensors(path: Path, header: Llama2CHeader) -> dict[str, Tensor]:
    with open_foreign(path) as file:
        data = np.memmap(file, np.float32, "c", header.start)
    tensors, start = {}, 0
    for name, shape in header.tensors():
        end = start + math.prod(shape)
        tensor = torch.from_numpy(data[start:end]).view(shape).clone()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            # llama2.c rotates neighbouring numbers, transformers those half a head apart.
            heads = shape[0] // header.head_width
            tensor = tensor.view(heads, header.head_width // 2, 2, shape[1]).transpose(1, 2).reshape(shape)
        tensors[name] = tensor
        start = end
    return tensors


def _check_rotary(tables: Tensor, header: Llama2CHeader, path: Path) -> None:
    """Raises `UserError` if the stored rotary tables are of another base than transformers is told."""
    width = header.head_width
    frequencies = _BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.outer(torch.arange(header.context, dtype=torch.float64), frequencies)
    wanted = torch.stack((angles.cos(), angles.sin()))
    # float32 angles are off by up to 6e-8 of themselves.
    if not torch.allclose(tables.double(), wanted, rtol=0, atol=1e-5 + 2e-7 * header.context):
        raise UserError(f"{path} has rotary tables of another base than 10,000, which can't be opened")
