"""The settings of nanochat's checkpoints: `meta_STEP.json` beside `model_STEP.pt`. No torch here."""

from __future__ import annotations

import re
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_json, whole_number
from tui_llm.llm.model.model_config import MOST_HEADS, MOST_LAYERS, MOST_ROWS, MOST_WIDTH

_SIZES = {"sequence_len": MOST_ROWS, "vocab_size": MOST_ROWS, "n_layer": MOST_LAYERS, "n_head": MOST_HEADS, "n_kv_head": MOST_HEADS, "n_embd": MOST_WIDTH}  # fmt: skip


def meta_path(path: Path) -> Path:
    """The file beside `model_STEP.pt` with its settings."""
    return path.with_name(re.sub(r"^model_(\d+)\.pt$", r"meta_\1.json", path.name))


def read_sizes(path: Path) -> dict[str, int]:
    """The model's settings by nanochat's names. Raises `UserError` if they are missing or impossible."""
    meta = meta_path(path)
    if not meta.is_file():
        raise UserError(f"{path} needs {meta.name} beside it: nanochat writes the model's shape there")
    raw = read_json(meta)
    settings = raw.get("model_config") if isinstance(raw, dict) else None
    if not isinstance(settings, dict):
        raise UserError(f"{meta} has no model_config; get it again")
    pattern = settings.get("window_pattern", "L")
    if not isinstance(pattern, str) or set(pattern.upper()) != {"L"}:
        raise UserError(
            f"{meta}: the window_pattern {str(pattern)[:40]!r} is of a nanochat after 11 January 2026, which can't be opened"
        )
    sizes: dict[str, int] = {}
    for name, most in _SIZES.items():
        size = whole_number(settings.get(name), 1, most)
        if size is None:
            raise UserError(f"{meta} has no usable {name} ({str(settings.get(name))[:40]}); get it again")
        sizes[name] = size
    if (
        sizes["n_embd"] % sizes["n_head"]
        or sizes["n_head"] % sizes["n_kv_head"]
        or (sizes["n_embd"] // sizes["n_head"]) % 2
    ):
        raise UserError(f"{meta} does not describe a nanochat: its heads don't divide its width")
    return sizes
