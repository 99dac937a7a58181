"""Validate a model folder before transformers reads it: the files, and whether the config matches the weights' size.

transformers trusts a config: one that claims a million layers, or a width of a million, would exhaust the memory before
the weights are read. Therefore the model is first built on torch's meta device, without data, while hooks count its
modules, parameters and buffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules import module as registry

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import SETTINGS, TOKENIZER, VOCABULARY, check_foreign, read_json, whole_number
from tui_llm.llm.model.shards import INDEX, weight_files
from tui_llm.llm.model.tensor_shapes import BITS, read_header
from tui_llm.llm.tokens.vocab_json import MOST_IDS, read_vocab

# Files that transformers looks for in a folder, and their maximum size in bytes.
_JSON = (
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "adapter_config.json",
    "processor_config.json", "preprocessor_config.json", "chat_template.json", "tekken.json", INDEX,
)  # fmt: skip
_OTHERS = {
    "tokenizer.json": TOKENIZER, "vocab.json": VOCABULARY, "merges.txt": VOCABULARY, "vocab.txt": VOCABULARY,
    "tokenizer.model": VOCABULARY, "spiece.model": VOCABULARY, "sentencepiece.bpe.model": VOCABULARY, "chat_template.jinja": SETTINGS,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """The sizes in the headers of the weight files: number of tensors, of elements, of bytes. `most` is the maximum
    number of weights: quantized formats pack several into one element."""

    tensors: int
    numbers: int
    bytes: int
    most: int


def check_files(folder: Path) -> None:
    """Raises `UserError` if a file that transformers would open is not a regular file, too large, or damaged JSON."""
    for name in _JSON:
        if (folder / name).is_symlink() or (folder / name).exists():
            read_json(folder / name, TOKENIZER if name == "tekken.json" else SETTINGS)
    for name, most in _OTHERS.items():
        if (folder / name).is_symlink() or (folder / name).exists():
            check_foreign(folder / name, most)
    for path in (folder / "additional_chat_templates").glob("*"):
        check_foreign(path, SETTINGS)


def check_vocabulary(folder: Path) -> None:
    """Raises `UserError` if ids of a vocabulary are out of range: transformers allocates an entry for each id, gaps
    included."""
    if (folder / "vocab.json").is_file():
        read_vocab(folder / "vocab.json")
    for name in ("added_tokens.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            continue
        raw = read_json(folder / name)
        if not isinstance(raw, dict):
            raise UserError(f"{folder / name} is not a JSON object; download it again")
        more = raw.get("added_tokens_decoder", {}) if name == "tokenizer_config.json" else raw
        ids = (
            (map(_number, more) if name == "tokenizer_config.json" else more.values())
            if isinstance(more, dict)
            else [None]
        )
        if any(whole_number(id, 0, MOST_IDS - 1) is None for id in ids):
            raise UserError(f"{folder / name} has an added token whose id is not an integer from 0 to {MOST_IDS - 1:,}")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def stored(folder: Path, quantized: bool) -> StoredWeights:
    """The sizes of the folder's weights. Raises `UserError` if they are not safetensors, or are damaged."""
    headers = [tensor for file in stored_files(folder) for tensor in read_header(file).values()]
    numbers = sum(tensor.numbers for tensor in headers)
    bits = sum(tensor.numbers * BITS[tensor.dtype] for tensor in headers)
    return StoredWeights(len(headers), numbers, bits // 8, bits // 2 if quantized else numbers)


def stored_files(folder: Path) -> list[Path]:
    """The files that transformers would load weights from."""
    return weight_files(folder) or sorted(folder.glob("*.safetensors"))


class _TooLarge(Exception):
    """The config describes a larger model than the weights can fill."""


def check_config(library: Any, config: Any, weights: StoredWeights, where: Path) -> int:
    """Raises `UserError` if `config` describes a larger model than the weights can fill. Returns the bytes of the
    model's buffers: masks, position tables."""
    try:
        with torch.device("meta"), _counted(weights) as count:
            library.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        return count.buffers
    except _TooLarge as error:
        raise UserError(
            f"{where} describes a larger model than its weights can fill ({error}): config and weights don't belong together"
        ) from error
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error):
            raise
        return 0  # not supported on the meta device: transformers itself reports problems


class _Count:
    """Counts the parts of a model while it is built."""

    def __init__(self, weights: StoredWeights) -> None:
        self.weights = weights
        self.modules = self.parameters = self.numbers = self.buffers = 0

    def module(self, *_: Any) -> None:
        self.modules += 1
        if self.modules > 40 * self.weights.tensors + 2000:
            raise _TooLarge(f"over {self.modules:,} modules, for {self.weights.tensors:,} tensors")

    def parameter(self, _: Any, __: str, made: Any) -> None:
        if made is None:
            return
        # A tied weight is counted twice, and one stored tensor may fill several parameters.
        self.parameters, self.numbers = self.parameters + 1, self.numbers + made.numel()
        if self.parameters > 8 * self.weights.tensors + 200:
            raise _TooLarge(f"over {self.parameters:,} parameters, for {self.weights.tensors:,} tensors")
        if self.numbers > 2 * self.weights.most + (1 << 20):
            raise _TooLarge(f"over {self.numbers:,} numbers, where {self.weights.numbers:,} are stored")

    def buffer(self, _: Any, __: str, made: Any) -> None:
        if made is None:
            return
        self.buffers += made.numel() * made.element_size()
        if self.buffers > 8 * self.weights.bytes + (1 << 28):
            raise _TooLarge(f"over {self.buffers:,} bytes of tables, for {self.weights.bytes:,} bytes of weights")


@contextmanager
def _counted(weights: StoredWeights) -> Iterator[_Count]:
    count = _Count(weights)
    hooks = [
        registry.register_module_module_registration_hook(count.module),
        registry.register_module_parameter_registration_hook(count.parameter),
        registry.register_module_buffer_registration_hook(count.buffer),
    ]
    try:
        yield count
    finally:
        for hook in hooks:
            hook.remove()
