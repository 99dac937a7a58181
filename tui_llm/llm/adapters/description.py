"""Facts about a model that is not in GPT-2's layout, without opening it and without torch and transformers."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_json
from tui_llm.llm.model.model_config import GGUF
from tui_llm.llm.model.shards import weight_files
from tui_llm.llm.model.tensor_shapes import DTYPES, read_header, read_shapes

_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", "max_sequence_length")
_LONGROPE = ("longrope", "su")  # its name now, and its first one
CONTEXT_UNKNOWN = 2048  # tokens: if the config has no limit
HEADS = ("lm_head.weight", "embed_out.weight")  # how the names of output heads end


class _Settings:
    """A config as attributes; those of its `text_config` take precedence."""

    def __init__(self, raw: dict[str, Any]) -> None:
        inner = raw.get("text_config")
        self.__dict__.update({**raw, **(inner if isinstance(inner, dict) else {})})


def described(path: Path) -> tuple[int | None, int | None, int | None]:
    """(parameters, context, vocabulary) of a folder or GGUF file, each None if unknown. Raises `UserError` if it can't
    be opened."""
    if path.suffix == GGUF:
        return None, None, None
    raw = read_json(path / "config.json")
    settings = _Settings(raw if isinstance(raw, dict) else {})
    vocabulary = getattr(settings, "vocab_size", None)
    return _parameters(path), context_of(settings), vocabulary if isinstance(vocabulary, int) else None


def _parameters(folder: Path) -> int | None:
    """The number of elements in its safetensors, from their headers. Raises `UserError` if there are none."""
    files = _files(folder)
    if not files:
        raise UserError(f"{folder} has no model.safetensors")
    return sum(math.prod(shape) for file in files for shape in read_shapes(file).values())


def _files(folder: Path) -> list[Path]:
    """The weight files; a run's checkpoint has the optimizer's file beside them."""
    return weight_files(folder) or sorted(folder.glob("*.safetensors"))


def stored_dtype(path: Path) -> str:
    """The dtype of most of the stored weights; empty if they are not in safetensors, or can't be read."""
    numbers: Counter[str] = Counter()
    try:
        for file in _files(path) if path.is_dir() else ():
            for tensor in read_header(file).values():
                numbers[tensor.dtype] += tensor.numbers
    except UserError:
        return ""
    most = next(iter(numbers.most_common(1)), None)
    return "" if most is None else DTYPES.get(most[0], most[0])


def stated_tying(path: Path) -> bool | None:
    """Whether the output head is the token embedding, as far as names tell: a head that is not in the file is. None if
    the file has one under a config that ties: what opens the model compares them."""
    if not path.is_dir():
        return None
    try:
        names = [name for file in _files(path) for name in read_header(file)]
        raw = read_json(path / "config.json")
    except UserError:
        return None
    if not names or not isinstance(raw, dict):
        return None
    if not any(name.endswith(HEADS) for name in names):
        return True
    return False if raw.get("tie_word_embeddings") is False else None


def context_of(config: Any) -> int:
    """The context length in the config, or a default; the first one of a model with LongRoPE."""
    return _stated(config) or CONTEXT_UNKNOWN


def stated_context(raw: dict[str, Any]) -> int | None:
    """As `context_of`, of a config.json; None if it has no limit."""
    return _stated(_Settings(raw))


def _stated(config: Any) -> int | None:
    most = _most(config)
    longer = longrope(config)
    return most if longer is None else longer[0]


def _most(config: Any) -> int | None:
    for name in _CONTEXT_NAMES:
        if (value := _length(getattr(config, name, None))) is not None:
            return value
    return None


def _length(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40 else None


def longrope(config: Any) -> tuple[int, int] | None:
    """(tokens that are fed, context in the config) of a model with LongRoPE; None for others. It rotates all keys by other
    factors as soon as a text is longer than its first context, so the keys in a cache would be wrong from there on."""
    most = _most(config)
    rotary = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if most is None or not isinstance(rotary, dict):
        return None
    for one in (rotary, *rotary.values()):  # one for all layers, or one for each kind of layers
        if isinstance(one, dict) and one.get("rope_type", one.get("type")) in _LONGROPE:
            name = "original_max_position_embeddings"
            first = _length(getattr(config, name, None)) or _length(one.get(name))
            if first is not None and first < most:
                return first, most
    return None


def longrope_of(folder: Path) -> tuple[int, int] | None:
    """`longrope` of a model folder; None also if its config can't be read."""
    try:
        raw = read_json(folder / "config.json")
    except UserError:
        return None
    return longrope(_Settings(raw)) if isinstance(raw, dict) else None
