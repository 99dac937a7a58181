"""Tensors with GPT-2's names, in nn.Linear's layout (out, in), to our own GPT: nanoGPT and llm.c store them so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tui_llm.common import memory
from tui_llm.common.errors import UserError
from tui_llm.llm.model.device import free_bytes
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.model.stored_gpt import hugging_face_name


def check_shapes(config: GPTConfig, shapes: Mapping[str, tuple[int, ...]], where: Path, *, biases: bool = True) -> None:
    """Compare the stored shapes with the config's. Without `biases`, none may be stored. Raises `UserError`."""
    known = set()
    for name, wanted in config.shapes():  # stops at the first missing one: a config may claim a million layers
        key, _ = hugging_face_name(name)
        if not biases and key.endswith(".bias"):
            continue
        known.add(key)
        if key not in shapes:
            raise UserError(f"{where} has no tensor {key}; it is not a whole GPT-2")
        if shapes[key] != wanted:
            raise UserError(
                f"{where}: {key} is {list(shapes[key])}, but its settings say {list(wanted)}; the file is damaged"
            )
    if more := sorted(set(shapes) - known):
        raise UserError(f"{where} has the tensor {more[0][:80]}, which GPT-2 has not; it is of another architecture")


def build(
    config: GPTConfig, get: Callable[[str], Tensor | None], where: Path, device: torch.device | str = "cpu"
) -> GPT:
    """The model; `get` returns a tensor by Hugging Face's name, or None for a bias that is not stored, which becomes
    zeros. Raises `UserError` if there is not enough memory."""
    cache = 2 * config.layers * config.context * config.width
    memory.check(4 * (config.parameters() + cache), free_bytes(torch.device(device)), f"opening {where}")
    with memory.enough(f"open {where}"):
        with torch.device("meta"):
            model = GPT(config)
        state = {}
        for name, shape in config.shapes():
            tensor = get(hugging_face_name(name)[0])
            tensor = torch.zeros(shape) if tensor is None else tensor.to(torch.float32).clone()
            state[name] = tensor.contiguous().to(device)
        if config.tied:
            state["head.weight"] = state["tokens.weight"]
        model.load_state_dict(state, assign=True)
        if config.tied:
            model.head.weight = model.tokens.weight
        return model.eval().requires_grad_(False)
