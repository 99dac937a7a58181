"""The header of llama2.c's checkpoints (`.bin`), versions 0 (legacy) and 1, both float32. No torch here.

0: 7 int32 (width, hidden, layers, heads, key/value heads, vocabulary, context), tensors, rotary tables; a negative
   vocabulary says that the output head is stored
1: magic "ak42", version, the same 7 int32, a byte (1: the head is the embedding), zeros up to 256 bytes, tensors
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_foreign, whole_number
from tui_llm.llm.formats.detect import LLAMA2_C_MAGIC
from tui_llm.llm.model.layouts import MOST_HEADS, MOST_LAYERS, MOST_ROWS, MOST_WIDTH

_LIMITS = (MOST_WIDTH, MOST_ROWS, MOST_LAYERS, MOST_HEADS, MOST_HEADS, MOST_ROWS, MOST_ROWS)


@dataclass(frozen=True, slots=True)
class Llama2CHeader:
    """The settings in a file's header; `start`: offset of the first tensor; `shared`: the head is the embedding."""

    version: int
    start: int
    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int
    shared: bool

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Each tensor's name (transformers') and shape, in the file's order; `rotary`: the tables of version 0."""
        C, kv = self.width, self.kv_heads * self.head_width
        attention = (("q", (C, C)), ("k", (kv, C)), ("v", (kv, C)), ("o", (C, C)))
        mlp = (("gate", (self.hidden, C)), ("down", (C, self.hidden)), ("up", (self.hidden, C)))
        embedding, last = ("model.embed_tokens.weight", (self.vocabulary, C)), ("model.norm.weight", (C,))
        norm1, norm2 = (f"model.layers.{{}}.{name}_layernorm.weight" for name in ("input", "post_attention"))
        products = [(f"model.layers.{{}}.self_attn.{name}_proj.weight", shape) for name, shape in attention]
        wide = [(f"model.layers.{{}}.mlp.{name}_proj.weight", shape) for name, shape in mlp]
        if self.version == 0:
            yield embedding
            kinds = [(norm1, (C,)), *products, (norm2, (C,)), *wide]
        else:
            yield from ((norm.format(layer), (C,)) for norm in (norm1, norm2) for layer in range(self.layers))
            yield last
            yield embedding
            kinds = [*products, *wide]
        for name, shape in kinds:
            yield from ((name.format(layer), shape) for layer in range(self.layers))
        if self.version == 0:
            yield last
            yield "rotary", (2, self.context, self.head_width // 2)
        if not self.shared:
            yield "lm_head.weight", (self.vocabulary, C)

    def numbers(self) -> int:
        C, kv = self.width, self.kv_heads * self.head_width
        layer = 2 * C + 2 * C * C + 2 * kv * C + 3 * C * self.hidden
        tables = 2 * self.context * (self.head_width // 2) if self.version == 0 else 0
        return self.layers * layer + C + self.vocabulary * C * (1 if self.shared else 2) + tables

    def parameters(self) -> int:
        return self.numbers() - (2 * self.context * (self.head_width // 2) if self.version == 0 else 0)


def read_header(path: Path) -> Llama2CHeader:
    """The header, checked against the file's length. Raises `UserError`."""
    with open_foreign(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(256)
    magic, version = struct.unpack("<Ii", head[:8])
    if magic != LLAMA2_C_MAGIC:
        version = 0
    elif version != 1:
        why = " (q8_0: its weights are rounded to int8)" if version == 2 else ""
        raise UserError(
            f"{path} is a llama2.c checkpoint of version {version}{why}; versions 0 and 1 (float32) can be opened: write it "
            "again with llama2.c's export.py --version 1"
        )
    start = 28 if version == 0 else 256
    if len(head) < start:
        raise UserError(f"{path} is empty or cut short; get it again")
    *sizes, vocabulary, context = struct.unpack_from("<7i", head, 0 if version == 0 else 8)
    shared = vocabulary > 0 if version == 0 else head[36] == 1
    sizes += [abs(vocabulary) if version == 0 else vocabulary, context]
    damaged = any(whole_number(number, 1, most) is None for number, most in zip(sizes, _LIMITS, strict=True))
    if (
        damaged
        or sizes[0] % sizes[3]
        or (sizes[0] // sizes[3]) % 2
        or sizes[3] % sizes[4]
        or (version and head[36] > 1)
    ):
        raise UserError(
            f"{path} is not a checkpoint of llm.c or llama2.c: no header of theirs; other .bin files can't be opened"
        )
    width, hidden, layers, heads, kv_heads, vocabulary, context = sizes
    header = Llama2CHeader(version, start, width, hidden, layers, heads, kv_heads, vocabulary, context, shared)
    wanted = start + 4 * header.numbers()
    if size != wanted:
        raise UserError(
            f"{path} has {size:,} bytes, its header describes {wanted:,} as llama2.c's version {version}: it is damaged, or "
            "another program's"
        )
    return header
