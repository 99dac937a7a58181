"""The header of llm.c's GPT-2 checkpoints (`.bin`), versions 3 (float32) and 5 (bfloat16), as its train_gpt2.py and train_gpt2.cu
write them. No torch here.

    256 int32: magic, version, context, vocabulary, layers, heads, width, rows of the embedding (padded), zeros
    then the tensors, each kind over all layers: wte, wpe, ln_1 weights, ln_1 biases, c_attn weights, …, ln_f
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_foreign, whole_number
from tui_llm.llm.model.layouts import MOST_HEADS, MOST_LAYERS, MOST_ROWS, MOST_WIDTH
from tui_llm.llm.model.shape import GPTConfig

HEADER = 1024  # bytes
_NUMBER = {3: 4, 5: 2}  # bytes of a number, by version
_LAYER = ("ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias",
          "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias")  # fmt: skip


@dataclass(frozen=True, slots=True)
class LlmCHeader:
    """The settings in a file's header. `rows`: of the stored embedding, padding included."""

    version: int
    config: GPTConfig
    rows: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Each tensor's name (Hugging Face's) and shape, in the file's order."""
        config = self.config
        C, inner = config.width, 4 * config.width
        shapes = ((C,), (C,), (3 * C, C), (3 * C,), (C, C), (C,), (C,), (C,), (inner, C), (inner,), (C, inner), (C,))
        yield "wte.weight", (self.rows, C)
        yield "wpe.weight", (config.context, C)
        for name, shape in zip(_LAYER, shapes, strict=True):
            for layer in range(config.layers):
                yield f"h.{layer}.{name}", shape
        yield "ln_f.weight", (C,)
        yield "ln_f.bias", (C,)


def read_header(path: Path) -> LlmCHeader:
    """The header, checked against the file's length. Raises `UserError`."""
    with open_foreign(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(HEADER)
    if len(head) < HEADER:
        raise UserError(f"{path} is empty or cut short; get it again")
    _, version, context, vocabulary, layers, heads, width, rows = struct.unpack("<8i", head[:32])
    if version not in _NUMBER:
        raise UserError(
            f"{path} is a llm.c checkpoint of version {version}; versions 3 (fp32) and 5 (bf16) can be opened: write it "
            "again with llm.c's newer train_gpt2.py"
        )
    limits = ((context, MOST_ROWS), (vocabulary, MOST_ROWS), (layers, MOST_LAYERS), (heads, MOST_HEADS), (width, MOST_WIDTH), (rows, MOST_ROWS))  # fmt: skip
    if any(whole_number(number, 1, most) is None for number, most in limits) or width % heads or rows < vocabulary:
        raise UserError(f"{path} does not describe a GPT-2: its header is damaged; get it again")
    header = LlmCHeader(version, GPTConfig(vocabulary, context, layers, heads, width), rows)
    padding = (rows - vocabulary) * width
    wanted = HEADER + _NUMBER[version] * (header.config.parameters() + padding)
    if size != wanted:
        raise UserError(f"{path} has {size:,} bytes, its header describes {wanted:,}; it is damaged: get it again")
    return header
