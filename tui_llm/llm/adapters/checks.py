"""What is asked of a folder before transformers reads it: are its files what they should be, and does its config promise no
larger a model than its weights make?

The library believes a config: a few bytes that say a million layers, or a width of a million, would cost all memory before it
looks at the weights. So the model is made first without any numbers (on torch's meta device), counted while it is being made.
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
from tui_llm.llm.model.tensor_shapes import BITS, read_header
from tui_llm.llm.tokens.vocab_json import MOST_IDS, read_vocab

_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"
# What the library looks for in a folder by itself, and the most bytes of it.
_JSON = (
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "adapter_config.json",
    "processor_config.json", "preprocessor_config.json", "chat_template.json", "tekken.json", _INDEX,
)  # fmt: skip
_OTHERS = {
    "tokenizer.json": TOKENIZER, "vocab.json": VOCABULARY, "merges.txt": VOCABULARY, "vocab.txt": VOCABULARY,
    "tokenizer.model": VOCABULARY, "spiece.model": VOCABULARY, "sentencepiece.bpe.model": VOCABULARY, "chat_template.jinja": SETTINGS,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """What the weights' headers say: how many tensors, numbers and bytes there are; `most` is how many numbers a model of
    these can have at the most, where quantised ones stand several in one."""

    tensors: int
    numbers: int
    bytes: int
    most: int


def check_files(folder: Path) -> None:
    """Raises `UserError` where a file that the library would open is no regular one, too large, or damaged JSON."""
    for name in _JSON:
        if (folder / name).is_symlink() or (folder / name).exists():
            read_json(folder / name, TOKENIZER if name == "tekken.json" else SETTINGS)
    for name, most in _OTHERS.items():
        if (folder / name).is_symlink() or (folder / name).exists():
            check_foreign(folder / name, most)
    for path in (folder / "additional_chat_templates").glob("*"):
        check_foreign(path, SETTINGS)


def check_vocabulary(folder: Path) -> None:
    """Raises `UserError` where ids of a vocabulary that the library would make are absurd: it has a place for each, and for
    each hole."""
    if (folder / "vocab.json").is_file():
        read_vocab(folder / "vocab.json")
    for name in ("added_tokens.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            continue
        raw = read_json(folder / name)
        if not isinstance(raw, dict):
            raise UserError(f"{folder / name} is not a JSON object; get it again")
        more = raw.get("added_tokens_decoder", {}) if name == "tokenizer_config.json" else raw
        ids = (
            (map(_number, more) if name == "tokenizer_config.json" else more.values())
            if isinstance(more, dict)
            else [None]
        )
        if any(whole_number(id, 0, MOST_IDS - 1) is None for id in ids):
            raise UserError(f"{folder / name} has an added token whose id is no integer from 0 to {MOST_IDS - 1:,}")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def stored(folder: Path, quantised: bool) -> Stored:
    """What the folder's weights hold. Raises `UserError` where they are not safetensors, or are damaged."""
    headers = [tensor for file in _weight_files(folder) for tensor in read_header(file).values()]
    numbers = sum(tensor.numbers for tensor in headers)
    bits = sum(tensor.numbers * BITS[tensor.dtype] for tensor in headers)
    return Stored(len(headers), numbers, bits // 8, bits // 2 if quantised else numbers)


def _weight_files(folder: Path) -> list[Path]:
    """The files that the library would take weights from."""
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    if not (folder / _INDEX).is_file():
        return sorted(folder.glob("*.safetensors"))
    raw = read_json(folder / _INDEX)
    places = raw.get("weight_map") if isinstance(raw, dict) else None
    if not isinstance(places, dict) or not places:
        raise UserError(f"{folder / _INDEX} does not say where the weights are; get it again")
    names = set(map(str, places.values()))
    for name in sorted(names):
        if Path(name).name != name or not name.endswith(".safetensors") or not (folder / name).is_file():
            raise UserError(
                f"{folder / _INDEX} names {name[:80]!r}, which is no safetensors file beside it; get all of the model"
            )
    return [folder / name for name in sorted(names)]


class _TooLarge(Exception):
    """The config promises more than the weights make."""


def check_config(library: Any, config: Any, weights: Stored, where: Path) -> int:
    """Raises `UserError` where the model that `config` describes is larger than its weights make it. Returns the bytes of what a
    model sets aside beside its weights: masks, tables of positions."""
    try:
        with torch.device("meta"), _counted(weights) as count:
            library.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        return count.buffers
    except _TooLarge as error:
        raise UserError(
            f"{where} describes a larger model than its weights make ({error}); they are of different models"
        ) from error
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error):
            raise
        return 0  # something in it can't be made without numbers: the library itself judges it


class _Count:
    """Of a model that is being made."""

    def __init__(self, weights: Stored) -> None:
        self.weights = weights
        self.modules = self.parameters = self.numbers = self.buffers = 0

    def module(self, *_: Any) -> None:
        self.modules += 1
        if self.modules > 40 * self.weights.tensors + 2000:
            raise _TooLarge(f"over {self.modules:,} layers and parts, for {self.weights.tensors:,} tensors")

    def parameter(self, _: Any, __: str, made: Any) -> None:
        if made is None:
            return
        # A tied matrix is counted twice, and what is stored as one may be several.
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
def _counted(weights: Stored) -> Iterator[_Count]:
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
