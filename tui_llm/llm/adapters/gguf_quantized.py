"""A quantized GGUF file through llama.cpp, with its quantized weights, as a Predictor. No torch here.

llama.cpp is C and trusts much of a file: a header whose values are not all known here, and within their ranges, goes to
transformers instead. It gets no vocabulary: ours gives the ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_foreign, whole_number
from tui_llm.llm.adapters import chat, llama_cpp_library
from tui_llm.llm.adapters.gguf_header import GgufInfo, GgufTensor, read_gguf
from tui_llm.llm.adapters.gguf_vocabulary import ARRAYS, read_vocabulary
from tui_llm.llm.adapters.llama_cpp_library import EXTRA, Array, LlamaCppModel
from tui_llm.llm.adapters.vocabulary import JsonTokenizer
from tui_llm.llm.model.layouts import MOST_ROWS

if TYPE_CHECKING:
    from torch import Tensor

FASTER = f"dequantized to float32; with its quantized weights it runs faster: {EXTRA}"
# Tokens per batch. From 64 on, llama.cpp's attention is another kernel with other roundings, and activations in 8 bits make
# much of a small difference; below, a text that was typed and one that was pasted get the same logits.
_BATCH = 32
_PROBE = 8  # tokens that are run when the file is opened
# Logits of one text in one batch and in two differ, since other kernels quantize other blocks; relative to the largest.
_TOLERANCE = 0.05

_FLOATS = frozenset(["F64", "F32", "F16", "BF16"])
_QUANTIZED = frozenset(
    ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]
)
# Dense decoders, with every token in the KV cache.
_ARCHITECTURES = frozenset(
    ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "gpt2", "starcoder2", "stablelm"]
)
_MOST_WIDE, _MOST_LAYERS = 1 << 20, 512  # llama.cpp ends the process above 512 layers
# The values that follow the architecture's name: the range of whole numbers, or of others.
_WHOLE = {
    "context_length": (1, MOST_ROWS), "embedding_length": (1, _MOST_WIDE), "block_count": (1, _MOST_LAYERS),
    "feed_forward_length": (1, 8 * _MOST_WIDE), "attention.head_count": (1, 4096), "attention.head_count_kv": (1, 4096),
    "attention.key_length": (1, 4096), "attention.value_length": (1, 4096), "rope.dimension_count": (1, 4096),
    "vocab_size": (1, MOST_ROWS), "attention.sliding_window": (1, MOST_ROWS),
    "rope.scaling.original_context_length": (1, MOST_ROWS),
}  # fmt: skip
_NUMBERS = (
    "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "rope.freq_base", "rope.scaling.factor",
    "rope.scale_linear", "attn_logit_softcapping", "final_logit_softcapping",
)  # fmt: skip
_NEEDED = ("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count")
_SCALINGS = ("none", "linear")  # others abort in llama.cpp where tensors or values that they need are missing


def is_quantized(header: GgufInfo) -> bool:
    return any(tensor.dtype not in _FLOATS for tensor in header.tensors.values())


def unsuitable(header: GgufInfo) -> str:
    """What keeps the file from llama.cpp, in a few words; empty if nothing does."""
    kind = header.settings.get("general.architecture")
    if kind not in _ARCHITECTURES:
        return f"architecture {str(kind)[:40]}"
    values = {
        key.removeprefix(f"{kind}."): value for key, value in header.settings.items() if key.startswith(f"{kind}.")
    }
    for name in (*_NEEDED, *values):
        if not _in_range(name, values.get(name)):
            return f"{kind}.{name[:60]}"
    heads = values["attention.head_count"]
    if heads % values.get("attention.head_count_kv", heads):
        return f"{kind}.attention.head_count_kv"
    if "attention.key_length" not in values and values["embedding_length"] % heads:
        return f"{kind}.attention.head_count"
    if header.settings.get("split.count", 1) not in (0, 1):
        return "a file in parts"
    return _unsuitable_tensor(header, values["embedding_length"])


def _in_range(name: str, value: Any) -> bool:
    if name in _WHOLE:
        return whole_number(value, *_WHOLE[name]) is not None
    if name in _NUMBERS:
        return isinstance(value, float) and 0 < value < 1e12  # False for NaN
    return name == "rope.scaling.type" and value in _SCALINGS


def _unsuitable_tensor(header: GgufInfo, width: int) -> str:
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2 or embedding.shape[0] != width:
        return "token_embd.weight"
    for name, tensor in header.tensors.items():
        small = len(tensor.shape) == 1 or name == "position_embd.weight"
        if not 1 <= len(tensor.shape) <= 2 or min(tensor.shape) < 1 or len(name) > 60:
            return name[:60]
        if tensor.dtype != "F32" if small else tensor.dtype not in _QUANTIZED | _FLOATS - {"F64"}:
            return f"{name} in {tensor.dtype}"
    return ""


class GgufPredictor:
    """Implements `predictor.Predictor`; its features are the logits (T, V). Raises `UserError` if llama.cpp can't open
    the file, or predicts NaN."""

    computed = "8-bit products"  # ggml quantizes the activations too

    def __init__(self, path: Path, header: GgufInfo, name: str) -> None:
        kind = header.settings["general.architecture"]

        def setting(key: str) -> int:
            return int(header.settings[f"{kind}.{key}"])

        self.path, self.header, self.name, self.kind = path, header, name, str(kind)
        self.parameters = header.numbers
        self.layers, self.heads = setting("block_count"), setting("attention.head_count")
        self.width, self.context = setting("embedding_length"), setting("context_length")
        self.vocabulary = self.kept = self._embedding.shape[1]
        self._ids: list[int] = []
        # Without a vocabulary, llama.cpp opens sooner, and none of the file's lists reach it.
        overrides: dict[str, str | int] = {"tokenizer.ggml.model": "none", f"{kind}.vocab_size": self.vocabulary}
        self._model = LlamaCppModel(path, self.vocabulary, self.context, self.parameters, overrides, batch=_BATCH)
        self._try()

    @property
    def _embedding(self) -> GgufTensor:
        return self.header.tensors["token_embd.weight"]

    @property
    def tied(self) -> bool:
        return "output.weight" not in self.header.tensors

    @property
    def stored(self) -> str:
        """The type of most of the weights, such as Q4_K."""
        numbers: Counter[str] = Counter()
        for tensor in self.header.tensors.values():
            numbers[tensor.dtype] += tensor.numbers
        return numbers.most_common(1)[0][0]

    def _try(self) -> None:
        """Raises `UserError` if a few tokens give NaN, or other logits after a crop of the cache."""
        ids = [at % self.vocabulary for at in range(min(_PROBE, self.context))]
        wanted = self.run(ids)
        if not np.isfinite(wanted).any() or np.isnan(wanted).any():
            raise UserError(f"{self.name} predicts NaN or infinite logits: its weights are damaged")
        half = len(ids) // 2
        self.crop(half)
        again = self.run(ids[half:])
        if float(np.abs(again - wanted[half:]).max()) > _TOLERANCE * float(np.abs(wanted).max()):
            raise UserError(f"{self.path}: llama.cpp gives other logits after its KV cache was cropped")
        self.crop(0)

    def run(self, ids: Sequence[int]) -> Array:
        made = self._model.run(ids)
        self._ids += ids
        return made

    def crop(self, length: int) -> None:
        if length >= len(self._ids):
            return
        del self._ids[max(0, length) :]
        if not self._model.crop(length) and self._ids:  # a cache that can only be emptied: run them again
            self._model.run(self._ids, every=False)

    def head(self, features: Any, size: int) -> Any:
        return features[:, :size]

    def embedding(self) -> Tensor:
        """The token embedding (V, C), dequantized to float32. Imports torch."""
        import gguf
        import torch

        tensor, kind = self._embedding, gguf.GGMLQuantizationType[self._embedding.dtype]
        with open_foreign(self.path) as file:
            file.seek(self.header.start + tensor.offset)
            data = np.frombuffer(file.read(tensor.length), np.uint8).reshape(self.vocabulary, -1)
        return torch.from_numpy(np.asarray(gguf.quants.dequantize(data, kind), np.float32))


def open_quantized(path: Path, name: str) -> tuple[GgufPredictor, JsonTokenizer, chat.ChatTemplate | None] | str:
    """The model, its vocabulary and its chat template, as `foreign.open_foreign`; or, if transformers has to read the
    file, a note that says why, empty if it is not quantized. Raises `UserError`."""
    try:
        header = read_gguf(path, ARRAYS)
    except ImportError:
        return ""  # what opens it next says what is missing
    if not is_quantized(header):
        return ""
    if not llama_cpp_library.available():
        return FASTER
    if why := unsuitable(header):
        return f"dequantized to float32: llama.cpp is not given this file ({why})"
    vocabulary = read_vocabulary(header, path)
    try:
        predictor = GgufPredictor(path, header, name)
    except UserError as error:
        return f"dequantized to float32: {error}"
    tokenizer = vocabulary.tokenizer(name, path, predictor.vocabulary, [])
    template = header.settings.get("tokenizer.chat_template")
    made = chat.made(template, vocabulary.special, name) if isinstance(template, str) else None
    return predictor, tokenizer, made
