"""Which training program wrote a file, by its content; the checkpoint in a folder. No torch here."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_foreign
from tui_llm.llm.model.model_config import GGUF

NANOGPT, LLM_C, LLAMA2_C, NANOCHAT = "nanoGPT", "llm.c", "llama2.c", "nanochat"
SUFFIXES = (".pt", ".bin")
LLM_C_MAGIC, LLAMA2_C_MAGIC = 20240326, 0x616B3432
# llm.c's other files, by their magic number.
_NO_MODEL = {
    20240327: "llm.c's debug state",
    20240328: "llm.c's tokenizer",
    20240520: "llm.c's training data",
    20240522: "llm.c's evaluation data",
    20240801: "llm.c's training data",
    20240803: "llm.c's Llama 3",
}
_STEP = re.compile(r"model_(\d+)\.pt")


def is_file(path: Path) -> bool:
    """Whether the path is a file that `format_of` may know."""
    return path.suffix in SUFFIXES and path.is_file()


def format_of(path: Path) -> str:
    """The program that wrote a file: `NANOGPT`, `LLM_C`, `LLAMA2_C` or `NANOCHAT`. Raises `UserError` if none of them
    did."""
    with open_foreign(path) as file:
        head = file.read(28)
    if path.suffix == ".pt":
        if head[:2] != b"PK":
            raise UserError(f"{path} is not a file of torch.save (since torch 1.6); nothing else in .pt can be opened")
        return NANOCHAT if _STEP.fullmatch(path.name) else NANOGPT
    if head[:2] == b"PK" or head[:1] == b"\x80":
        raise UserError(
            f"{path} is a pickle, which can run code and is never opened; convert it to safetensors, as transformers' "
            "save_pretrained writes it"
        )
    if len(head) < 28:
        raise UserError(f"{path} is empty or cut short; get it again")
    (magic,) = struct.unpack("<I", head[:4])
    if magic in _NO_MODEL:
        raise UserError(f"{path} is {_NO_MODEL[magic]}, not a GPT-2 checkpoint, which begins with {LLM_C_MAGIC}")
    return LLM_C if magic == LLM_C_MAGIC else LLAMA2_C


def checkpoint_in(folder: Path) -> Path | None:
    """The checkpoint in a folder without config.json: `ckpt.pt`, nanochat's newest `model_*.pt`, or its only `.bin`
    file besides a tokenizer's. Raises `UserError` if it has several."""
    if (folder / "ckpt.pt").is_file():
        return folder / "ckpt.pt"
    steps = [(int(match[1]), path) for path in folder.glob("model_*.pt") if (match := _STEP.fullmatch(path.name))]
    if steps:
        return max(steps)[1]
    models = sorted(path for path in folder.glob("*.bin") if not path.name.endswith("tokenizer.bin") and is_model(path))
    if len(models) > 1:
        raise UserError(f"{folder} has several models: give one of " + ", ".join(path.name for path in models[:8]))
    return models[0] if models else None


def is_model(path: Path) -> bool:
    """Whether a `.bin` file is one of llm.c or llama2.c by its first number; any other is left to the folder's own
    error."""
    try:
        with open_foreign(path) as file:
            head = file.read(4)
    except UserError:
        return False
    return len(head) == 4 and struct.unpack("<I", head)[0] in (LLM_C_MAGIC, LLAMA2_C_MAGIC)


def opens_by_name(path: Path) -> bool:
    """Whether the path is a single file that can be opened as a model."""
    return path.is_file() and (path.suffix == GGUF or path.suffix in SUFFIXES)
