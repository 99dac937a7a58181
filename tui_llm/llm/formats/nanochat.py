"""nanochat's checkpoints (`model_STEP.pt` with `meta_STEP.json` beside it), as transformers' NanoChat.

transformers has nanochat's architecture of October 2025 to 11 January 2026: rotary positions, RMSNorm without weights,
QK norm, relu², softcapped logits. The versions after it add tensors, by which they are told apart: they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from tui_llm.common import memory
from tui_llm.common.errors import UserError
from tui_llm.llm.adapters.causal import CausalPredictor
from tui_llm.llm.adapters.foreign import EXTRA, transformers_library
from tui_llm.llm.formats import archive
from tui_llm.llm.formats.llama2_c import built
from tui_llm.llm.formats.nanochat_meta import meta_path, read_sizes
from tui_llm.llm.model.device import free_bytes

_LATER = {  # tensors of later versions, newest first: what each was added for
    "smear_gate.weight": "smear and backout (March 2026)",
    "value_embeds": "value embeddings (January 2026)",
    "resid_lambdas": "scaled residuals (January 2026)",
}
_COMPILED = "_orig_mod."  # before every name if a compiled model was saved
_PARTS = {
    "attn.c_q": "self_attn.q_proj", "attn.c_k": "self_attn.k_proj", "attn.c_v": "self_attn.v_proj",
    "attn.c_proj": "self_attn.o_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip


def load(path: Path, name: str, place: torch.device) -> tuple[CausalPredictor, str]:
    """The model as a Predictor, and a line about it. Raises `UserError`."""
    sizes = read_sizes(path)
    library = transformers_library(name)
    if not hasattr(library, "NanoChatConfig"):
        raise UserError(f"transformers {library.__version__} has no NanoChat; get a newer one: {EXTRA}")
    with archive.opened(path) as found:
        names = _checked(found, sizes, path)
        memory.check(8 * sum(one.numbers for one in found.tensors.values()), free_bytes(place), f"opening {path}")
        try:
            with safe_open(found.path, framework="pt") as file:
                tensors = {own: file.get_tensor(found.same.get(key, key)) for key, own in names.items()}
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} can't be read ({error}); get it again") from error
    # The rows after vocab_size are padding.
    for padded in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[padded] = tensors[padded][: sizes["vocab_size"]].clone()
    model = built(library, _config(library, sizes), tensors, path, place)
    return CausalPredictor(model, name), "nanochat checkpoint in the architecture of October 2025, computed in float32"


def _config(library: Any, sizes: dict[str, int]) -> Any:
    return library.NanoChatConfig(
        vocab_size=sizes["vocab_size"], hidden_size=sizes["n_embd"], intermediate_size=4 * sizes["n_embd"],
        num_hidden_layers=sizes["n_layer"], num_attention_heads=sizes["n_head"], num_key_value_heads=sizes["n_kv_head"],
        max_position_embeddings=sizes["sequence_len"], rms_norm_eps=torch.finfo(torch.float32).eps,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, final_logit_softcapping=15.0,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip


def _shapes(sizes: dict[str, int], rows: int) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """nanochat's name of each tensor, transformers' name, and its shape."""
    C = sizes["n_embd"]
    kv = sizes["n_kv_head"] * (C // sizes["n_head"])
    wide = {"attn.c_k": (kv, C), "attn.c_v": (kv, C), "mlp.c_fc": (4 * C, C), "mlp.c_proj": (C, 4 * C)}
    yield "transformer.wte.weight", "model.embed_tokens.weight", (rows, C)
    yield "lm_head.weight", "lm_head.weight", (rows, C)
    for layer in range(sizes["n_layer"]):
        for part, own in _PARTS.items():
            yield f"transformer.h.{layer}.{part}.weight", f"model.layers.{layer}.{own}.weight", wide.get(part, (C, C))


def _checked(found: archive.Archive, sizes: dict[str, int], path: Path) -> dict[str, str]:
    """Name in the file → transformers' name, after checking that the tensors are those of the architecture, with its
    shapes. Raises `UserError`."""
    everything = [*found.tensors, *found.same]
    prefix = _COMPILED if everything and all(name.startswith(_COMPILED) for name in everything) else ""
    for mark, what in _LATER.items():
        if any(name.removeprefix(prefix).startswith(mark) for name in everything):
            raise UserError(
                f"{path} is of a nanochat with {what}, which transformers does not have; only its architecture before 11 "
                "January 2026 can be opened"
            )
    stored = {name: found.tensors[found.same.get(name, name)] for name in everything}
    embedding = stored.get(prefix + "transformer.wte.weight")
    rows = embedding.shape[0] if embedding is not None and embedding.shape else 0
    if rows < sizes["vocab_size"]:
        raise UserError(
            f"{path} has no embedding of {sizes['vocab_size']:,} tokens; it is not the model of {meta_path(path).name}"
        )
    names: dict[str, str] = {}
    for key, own, shape in _shapes(sizes, rows):
        info = stored.get(prefix + key)
        if info is None:
            raise UserError(f"{path} has no tensor {key}; it is not a whole nanochat")
        if info.shape != shape or not info.dtype.startswith(("F", "BF")):
            raise UserError(
                f"{path}: {key} is {list(info.shape)} of type {info.dtype}, but {meta_path(path).name} says {list(shape)}"
            )
        names[prefix + key] = own
    if more := sorted(set(everything) - set(names)):
        raise UserError(f"{path} has the tensor {more[0][:80]}, which this nanochat has not; it is of another version")
    return names
