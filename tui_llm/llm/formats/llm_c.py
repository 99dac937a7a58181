"""llm.c's GPT-2 checkpoints (`.bin`) as our own GPT."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tui_llm.common.foreign_files import open_foreign
from tui_llm.llm.formats import gpt_weights
from tui_llm.llm.formats.llm_c_header import HEADER, read_header
from tui_llm.llm.model.model import GPT


def load(path: Path, device: torch.device | str = "cpu") -> tuple[GPT, str]:
    """The model, in float32, and a line about it. Padding rows are left out. Raises `UserError`."""
    header = read_header(path)
    config = header.config
    with open_foreign(path) as file:
        data = np.memmap(file, np.float32 if header.version == 3 else np.int16, "c", HEADER)
    stored: dict[str, Tensor] = {}
    start = 0
    for name, shape in header.tensors():
        end = start + math.prod(shape)
        numbers = torch.from_numpy(data[start:end])
        stored[name] = (numbers if header.version == 3 else numbers.view(torch.bfloat16)).view(shape)
        start = end
    stored["wte.weight"] = stored["wte.weight"][: config.vocabulary]
    gpt_weights.check_shapes(config, {name: tuple(tensor.shape) for name, tensor in stored.items()}, path)
    kind = "float32" if header.version == 3 else "bfloat16"
    padding = header.rows - config.vocabulary
    note = f"llm.c checkpoint, version {header.version} ({kind})"
    return gpt_weights.build(config, stored.get, path, device), note + (
        f", {padding:,} padding rows of its embedding left out" if padding else ""
    )
