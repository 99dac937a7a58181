"""nanochat's checkpoints (`model_STEP.pt` with `meta_STEP.json` beside it).

Its architecture changed often; the tensors tell the versions apart. Two can be opened: that of October 2025 to 11
January 2026 as transformers' NanoChat, that of 14 March 2026 and after in `nanochat_model.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tui_llm.common import memory
from tui_llm.common.errors import UserError
from tui_llm.llm.adapters.causal import CausalPredictor
from tui_llm.llm.adapters.foreign import transformers_library
from tui_llm.llm.formats import archive
from tui_llm.llm.formats.llama2_c import built
from tui_llm.llm.formats.nanochat_meta import NanoChatMeta, meta_path, read_meta
from tui_llm.llm.formats.nanochat_model import NanoChatModel, NanoChatPredictor
from tui_llm.llm.model.device import free_bytes

_SMEAR = "smear_gate.weight"  # in every checkpoint since 14 March 2026
_BETWEEN = ("value_embeds", "resid_lambdas", "x0_lambdas")  # since 11 January 2026
_COMPILED = "_orig_mod."  # before every name if a compiled model was saved
_PARTS = {
    "attn.c_q": "self_attn.q_proj", "attn.c_k": "self_attn.k_proj", "attn.c_v": "self_attn.v_proj",
    "attn.c_proj": "self_attn.o_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip


def load(path: Path, name: str, place: torch.device) -> tuple[CausalPredictor | NanoChatPredictor, str]:
    """The model as a Predictor, and a line about it. Raises `UserError`."""
    meta = read_meta(path)
    with archive.opened(path) as found:
        names, later = checked(found, meta, path)
        need = 8 * sum(one.numbers for one in found.tensors.values())
        memory.check(need, free_bytes(place), f"opening {path}")
        try:
            with safe_open(found.path, framework="pt") as file:
                tensors = {
                    own: file.get_tensor(found.same.get(key, key)).to(torch.float32) for key, own in names.items()
                }
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} can't be read ({error}); get it again") from error
    for own in tensors:  # the rows after vocab_size are padding
        if own in ("transformer.wte.weight", "lm_head.weight") or own.startswith("value_embeds."):
            tensors[own] = tensors[own][: meta.vocabulary].clone()
    if later:
        model = NanoChatModel(meta, {own: tensor.to(place) for own, tensor in tensors.items()})
        note = "nanochat checkpoint in the architecture of March 2026, computed in float32"
        return NanoChatPredictor(model), note
    predictor = _through_transformers(tensors, meta, path, name, place)
    return predictor, "nanochat checkpoint in the architecture of October 2025, computed in float32"


def _through_transformers(
    tensors: dict[str, Tensor], meta: NanoChatMeta, path: Path, name: str, place: torch.device
) -> CausalPredictor:
    library: Any = transformers_library(name)
    if not hasattr(library, "NanoChatConfig"):
        raise UserError(f"transformers {library.__version__} has no NanoChat: pip install -U 'transformers>=5,<6'")
    config = library.NanoChatConfig(
        vocab_size=meta.vocabulary, hidden_size=meta.width, intermediate_size=4 * meta.width,
        num_hidden_layers=meta.layers, num_attention_heads=meta.heads, num_key_value_heads=meta.kv_heads,
        max_position_embeddings=meta.context, rms_norm_eps=torch.finfo(torch.float32).eps,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, final_logit_softcapping=15.0,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    own = {_transformers_name(key): tensor for key, tensor in tensors.items()}
    return CausalPredictor(built(library, config, own, path, place), name)


def _transformers_name(name: str) -> str:
    if name == "transformer.wte.weight":
        return "model.embed_tokens.weight"
    if not name.startswith("transformer.h."):
        return name
    layer, part = name.removeprefix("transformer.h.").removesuffix(".weight").split(".", 1)
    return f"model.layers.{layer}.{_PARTS[part]}.weight"


def checked(found: archive.Archive, meta: NanoChatMeta, path: Path) -> tuple[dict[str, str], bool]:
    """Name in the file → nanochat's name, and whether it is the architecture of March 2026, after checking that the
    tensors are those of a known architecture, with its shapes. Raises `UserError`."""
    everything = [*found.tensors, *found.same]
    prefix = _COMPILED if everything and all(name.startswith(_COMPILED) for name in everything) else ""
    stored = {name.removeprefix(prefix): found.tensors[found.same.get(name, name)] for name in everything}
    later = _SMEAR in stored
    if not later and (any(name.startswith(_BETWEEN) for name in stored) or set(meta.pattern) != {"L"}):
        raise UserError(
            f"{path} is of a nanochat between 11 January and 14 March 2026 (scaled residuals, windows), whose versions can't be "
            "told apart; the architectures before and after can be opened"
        )
    embedding = stored.get("transformer.wte.weight")
    rows = embedding.shape[0] if embedding is not None and embedding.shape else 0
    if rows < meta.vocabulary:
        raise UserError(f"{path} has no embedding of {meta.vocabulary:,} tokens; it is not the model of {meta_path(path).name}")  # fmt: skip
    known = set()
    for key, shape in meta.shapes(rows, later=later):
        info = stored.get(key)
        if info is None:
            raise UserError(f"{path} has no tensor {key}; it is not a whole nanochat")
        if info.shape != shape or not info.dtype.startswith(("F", "BF")):
            raise UserError(
                f"{path}: {key} is {list(info.shape)} of type {info.dtype}, but {meta_path(path).name} says {list(shape)}"
            )
        known.add(key)
    if more := sorted(set(stored) - known):
        raise UserError(f"{path} has the tensor {more[0][:80]}, which this nanochat has not; it is of another version")
    return {prefix + key: key for key in known}, later
