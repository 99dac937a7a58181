"""Write a GPT-2 as a GGUF file, which llama.cpp opens: the `gguf` library writes the format and quantizes.

As llama.cpp's own converter does it, matrices have the chosen type; biases, LayerNorms and the position embedding stay
float32. Rows of the embedding that no token has are left out: llama.cpp's softmax would count them, ours does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import regex

from tui_llm.common import memory, storage
from tui_llm.common.errors import UserError
from tui_llm.llm.model import switches
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.pre_tokenizer import GPT2_PATTERN
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.llm.tokens.tokenizer import BPETokenizer, as_written, from_merges

DTYPES = ("f32", "f16", "q8_0")
EXTRA = "pip install 'tui-llm[gguf]'"
_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}  # llama.cpp's LLAMA_FTYPE
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # token types
_MOST_HALF = 65504.0  # the largest float16
# llama.cpp needs a list of merges, and the library writes no empty one; the right part of this merge never occurs.
_NO_MERGE = f"{END_OF_TEXT[0]} {END_OF_TEXT[1:]}"
_PROBES = (
    "Hello world",
    " x  1234 12,5\n\n  it's IT'S",
    "\r\nÉcole中文 👍\t(a)  ",
)  # texts that other rules cut otherwise
# Names of `tokenizer.ggml.pre` → what cuts a text before GPT-2's pattern: nothing, or every digit.
_PRES = {"gpt-2": regex.compile(r"(?!)"), "smollm": regex.compile(r"(\p{N})")}

# Our name of a module → GGUF's.
_TOP = {"tokens": "token_embd", "positions": "position_embd", "norm": "output_norm", "head": "output"}
_BLOCK = {
    "norm1": "attn_norm",
    "attention.qkv": "attn_qkv",
    "attention.out": "attn_output",
    "norm2": "ffn_norm",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
}


def write_gguf(model: GPT, tokenizer: BPETokenizer, path: Path, name: str, dtype: str = "f32") -> None:
    """Write `path`. Raises `UserError` if the extra is missing, or the vocabulary or a weight can't be written in this
    format."""
    try:
        import gguf
    except ImportError as error:
        raise UserError(f"writing GGUF needs an extra: {EXTRA}") from error
    if not model.config.plain:
        named = ", ".join(name for name in switches.names_of(model.config) if name != switches.UNTIED)
        raise UserError(
            f"{name} has the switches {named}, and GGUF is written for GPT-2's architecture only; export it as a folder instead"
        )
    if model.config.exact_gelu:
        raise UserError(
            f"{name} has an exact GELU, and llama.cpp's GPT-2 the approximation with tanh; it can't be written as GGUF"
        )
    tokens, types, pre = _vocabulary(tokenizer)
    if tokenizer.size > model.config.vocabulary:
        raise UserError(f"the vocabulary of {name} has more tokens than its model; they are of different models")

    def write(part: Path) -> None:
        writer = gguf.GGUFWriter(part, "gpt2")
        try:
            _describe(writer, model, name, dtype)
            _add_vocabulary(writer, tokenizer, tokens, types, pre)
            for tensor, data in _tensors(model, tokenizer.size):
                kind = gguf.GGMLQuantizationType[_dtype_of(tensor, data, dtype).upper()]
                writer.add_tensor(tensor, gguf.quants.quantize(data, kind), raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()

    with memory.enough(f"write {name}"):
        storage.by_library(path, write)


def _describe(writer: Any, model: GPT, name: str, dtype: str) -> None:
    config = model.config
    writer.add_name(name)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.hidden)
    writer.add_block_count(config.layers)
    writer.add_head_count(config.heads)
    writer.add_layer_norm_eps(config.epsilon)
    writer.add_file_type(_FILE_TYPES[dtype])
    if dtype == "q8_0":
        writer.add_quantization_version(2)


def _add_vocabulary(writer: Any, tokenizer: BPETokenizer, tokens: list[str], types: list[int], pre: str) -> None:
    merges = [f"{as_written(left)} {as_written(right)}" for left, right in tokenizer.merges or ()]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges or [_NO_MERGE])
    writer.add_bos_token_id(tokenizer.end_of_text if tokenizer.start is None else tokenizer.start)
    writer.add_eos_token_id(tokenizer.end_of_text)
    writer.add_add_bos_token(tokenizer.starts)


def _vocabulary(tokenizer: BPETokenizer) -> tuple[list[str], list[int], str]:
    """The tokens and their types, in order of their ids, and the name of the rule that cuts text. Raises `UserError` if GGUF's gpt2 vocabulary can't hold them."""
    name = tokenizer.name
    if tokenizer.merges is None or tokenizer.pattern != GPT2_PATTERN:
        raise UserError(
            f"the vocabulary {name} does not cut text as GPT-2's does, or has no list of merges; GGUF needs both"
        )
    if tokenizer.end_of_text is None:
        raise UserError(f"the vocabulary {name} has no {END_OF_TEXT}; llama.cpp would end texts at token 11 instead")
    tokens, types = [], []
    for id in range(tokenizer.size):
        try:
            data = tokenizer.token_bytes(id)
        except KeyError:
            tokens.append(f"[PAD{id}]")
            types.append(_UNUSED)
            continue
        kind = _kind(tokenizer, id, data)
        tokens.append(as_written(data) if kind == _NORMAL else data.decode())
        types.append(kind)
    if len(set(tokens)) != len(tokens):
        raise UserError(f"the vocabulary {name} has a token twice, which GGUF can't hold")
    return tokens, types, _pre(tokenizer, tokens, types)


def _kind(tokenizer: BPETokenizer, id: int, data: bytes) -> int:
    """The type of a token: those that no merge makes are matched in a text as a whole, or never occur."""
    if tokenizer.is_special(id):
        return _CONTROL
    if tokenizer.rank(data) is not None:
        return _NORMAL
    return _USER_DEFINED if id in tokenizer.encode(data.decode("utf-8", "replace")) else _NORMAL


def _pre(tokenizer: BPETokenizer, tokens: list[str], types: list[int]) -> str:
    """The name for `tokenizer.ggml.pre`. Raises `UserError` if text is cut by other rules than those of `_PRES`, such as a
    space in front."""
    ids = {token: id for id, token in enumerate(tokens)}
    plain = from_merges(tokenizer.name, tokenizer.merges or [], ids, {}, Path(tokenizer.name))
    added = [id for id, kind in enumerate(types) if kind in (_CONTROL, _USER_DEFINED)]
    whole = all(
        tokenizer.encode(f"a {tokens[id]} b", allow_special=True) == [*plain.encode("a "), id, *plain.encode(" b")]
        for id in added
    )
    for name, parts in _PRES.items() if whole else ():
        if all(
            tokenizer.encode(text) == [id for part in parts.split(text) for id in plain.encode(part)]
            for text in _PROBES
        ):
            return name
    raise UserError(
        f"the vocabulary {tokenizer.name} cuts text by rules that GGUF has no name for, such as a space in front; it can't be written"
    )


def _tensors(model: GPT, rows: int) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Each weight once, by its name in GGUF."""
    for name, parameter in model.weights():
        module, _, leaf = name.rpartition(".")
        if module in _TOP:
            named = _TOP[module]
        else:
            _, layer, inner = module.split(".", 2)
            named = f"blk.{layer}.{_BLOCK[inner]}"
        tensor = parameter.detach().float().cpu()
        yield f"{named}.{leaf}", (tensor[:rows] if module in ("tokens", "head") else tensor).contiguous().numpy()


def _dtype_of(name: str, data: npt.NDArray[np.float32], dtype: str) -> str:
    """The type that a tensor is stored in. Raises `UserError` if a weight is beyond float16's range."""
    if dtype == "f32" or data.ndim == 1 or name.startswith("position_embd"):
        return "f32"
    if not np.abs(data).max() <= _MOST_HALF:
        raise UserError(f"{name} has a weight beyond {dtype}'s range of ±{_MOST_HALF:,.0f}, or NaN; write f32")
    return "f16" if data.shape[-1] % 32 else dtype  # q8_0 has blocks of 32
