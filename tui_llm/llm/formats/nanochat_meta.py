"""The settings of nanochat's checkpoints: `meta_STEP.json` beside `model_STEP.pt`. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_json, whole_number
from tui_llm.llm.model.layouts import MOST_HEADS, MOST_LAYERS, MOST_ROWS, MOST_WIDTH

_SIZES = {"sequence_len": MOST_ROWS, "vocab_size": MOST_ROWS, "n_layer": MOST_LAYERS, "n_head": MOST_HEADS, "n_kv_head": MOST_HEADS, "n_embd": MOST_WIDTH}  # fmt: skip
GATE, SMEAR = 12, 24  # channels that the gates of value embeddings and of smear read
_TILE = 128  # short windows are multiples of it


@dataclass(frozen=True, slots=True)
class NanoChatMeta:
    """A model's shape. `pattern`: which layers see the whole context (L), which a quarter of it (S)."""

    context: int
    vocabulary: int
    layers: int
    heads: int
    kv_heads: int
    width: int
    pattern: str

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_width

    def windows(self) -> list[int]:
        """For each layer, how many earlier tokens a token attends to. The last layer's window is the whole context."""
        short = -(-self.context // 4 // _TILE) * _TILE
        kinds = [self.pattern[layer % len(self.pattern)] for layer in range(self.layers - 1)] + ["L"]
        return [self.context if kind == "L" else short for kind in kinds]

    def has_value_embedding(self, layer: int) -> bool:
        """In the architecture of March 2026: the last layer has one, and every second one before it."""
        return layer % 2 == (self.layers - 1) % 2

    def shapes(self, rows: int, *, later: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Every tensor's name and shape; `rows`: of the embedding, padding included; `later`: in the architecture of
        March 2026."""
        C, kv = self.width, self.kv_width
        kinds = {"attn.c_q": (C, C), "attn.c_k": (kv, C), "attn.c_v": (kv, C), "attn.c_proj": (C, C), "mlp.c_fc": (4 * C, C), "mlp.c_proj": (C, 4 * C)}  # fmt: skip
        yield "transformer.wte.weight", (rows, C)
        yield "lm_head.weight", (rows, C)
        for layer in range(self.layers):
            yield from ((f"transformer.h.{layer}.{kind}.weight", shape) for kind, shape in kinds.items())
            if later and self.has_value_embedding(layer):
                yield f"transformer.h.{layer}.attn.ve_gate.weight", (self.kv_heads, GATE)
                yield f"value_embeds.{layer}.weight", (rows, kv)
        if later:
            yield "smear_gate.weight", (1, SMEAR)
            yield from ((name, (1,)) for name in ("smear_lambda", "backout_lambda"))
            yield from ((name, (self.layers,)) for name in ("resid_lambdas", "x0_lambdas"))


def meta_path(path: Path) -> Path:
    """The file beside `model_STEP.pt` with its settings."""
    return path.with_name(re.sub(r"^model_(\d+)\.pt$", r"meta_\1.json", path.name))


def read_meta(path: Path) -> NanoChatMeta:
    """The settings of the model in `path`. Raises `UserError` if they are missing or impossible."""
    meta = meta_path(path)
    if not meta.is_file():
        raise UserError(f"{path} needs {meta.name} beside it: nanochat writes the model's shape there")
    raw = read_json(meta)
    settings = raw.get("model_config") if isinstance(raw, dict) else None
    if not isinstance(settings, dict):
        raise UserError(f"{meta} has no model_config; get it again")
    sizes: list[int] = []
    for name, most in _SIZES.items():
        size = whole_number(settings.get(name), 1, most)
        if size is None:
            raise UserError(f"{meta} has no usable {name} ({str(settings.get(name))[:40]}); get it again")
        sizes.append(size)
    pattern = settings.get("window_pattern", "L")
    if not isinstance(pattern, str) or not pattern or not set(pattern.upper()) <= {"L", "S"}:
        raise UserError(f"{meta} has the window_pattern {str(pattern)[:40]!r}; only S and L are known")
    context, vocabulary, layers, heads, kv_heads, width = sizes
    made = NanoChatMeta(context, vocabulary, layers, heads, kv_heads, width, pattern.upper())
    if made.width % made.heads or made.heads % made.kv_heads or made.head_width % 2:
        raise UserError(f"{meta} does not describe a nanochat: its heads don't divide its width")
    return made
