"""What a GGUF file says of its positions and its attention, where transformers (5.24) does not read it: set in the model's
config, or refused by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.llm.adapters.gguf_header import GgufInfo

# Beside those that set_config and check_config read. The weights' shapes show the lengths: those of other sizes don't load.
_SHAPES = (
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa",
)  # fmt: skip
_USUAL = {"attention.causal": True}
_SET = ("rope.freq_base", "rope.freq_base_swa", "rope.dimension_count")
# As the file calls it → as configs call it.
_ALIKE = {
    "attention.layer_norm_epsilon": ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "layer_norm_epsilon"),
    "attention.sliding_window": ("sliding_window",),
    "attention.sliding_window_pattern": ("_sliding_window_pattern",),
    "attention.shared_kv_layers": ("num_kv_shared_layers",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
}


def set_config(reader: Any, config: Any, header: GgufInfo, path: Path) -> None:
    """Set in `config`, which `reader`, transformers' module, made from the file, what its table of keys lacks. Raises
    `UserError` for a key that changes the numbers and has no place in the config."""
    kind = str(header.settings.get("general.architecture"))
    table = reader.GGUF_TO_TRANSFORMERS_MAPPING["config"]
    known = {key for key, name in (table.get(kind) or table.get(config.model_type) or {}).items() if name is not None}
    stated = {
        key.removeprefix(f"{kind}."): value for key, value in header.settings.items() if key.startswith(f"{kind}.")
    }
    _check_scaling(kind, stated, path)
    _set_rotary(config, kind, stated, path)
    for key, value in stated.items():
        if key in known or key in _SHAPES or key in _SET or value is None:  # lists are not read here
            continue
        if key in _ALIKE:
            _set_alike(config, kind, key, _window(key, value, stated), path)
        elif (
            key.startswith(("rope.", "attention.")) and not key.startswith("rope.scal") and value is not _USUAL.get(key)
        ):
            raise _refused(kind, key, value, path)


def _window(key: str, value: Any, stated: dict[str, Any]) -> Any:
    """`value`; of a sliding window, None if it has no effect."""
    if key != "attention.sliding_window" or type(value) is not int:
        return value
    context = stated.get("context_length")
    return None if value == 0 or (isinstance(context, int) and value >= context) else value


def _refused(kind: str, key: str, value: Any, path: Path) -> UserError:
    return UserError(
        f"{path} has {kind}.{key[:60]} {str(value)[:40]}, which transformers does not read from GGUF: the numbers would be wrong; "
        "open the model's Hugging Face folder instead"
    )


def _check_scaling(kind: str, stated: dict[str, Any], path: Path) -> None:
    """llama.cpp scales by a factor without a type as it does by type linear."""
    if kind == "gpt-oss":  # the one architecture whose scaling transformers reads
        return
    scaling = stated.get("rope.scaling.type")
    factors = [stated.get(key, 1) for key in ("rope.scale_linear", "rope.scaling.factor")]
    if scaling == "none":
        factors = factors[:1]
    if scaling not in (None, "none") or any(factor not in (0, 1) for factor in factors):
        raise UserError(
            f"{path} scales its positions ({kind}.rope.scaling), which transformers does not read from GGUF: the numbers would be "
            "wrong; open the model's Hugging Face folder instead"
        )
    if stated.get("rope.scaling.attn_factor", 1) != 1:
        raise _refused(kind, "rope.scaling.attn_factor", stated["rope.scaling.attn_factor"], path)


def _set_rotary(config: Any, kind: str, stated: dict[str, Any], path: Path) -> None:
    """The rotary base, also of models that have one for each kind of layers (Gemma 3), and the share of a head that is
    rotated."""
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict):
        return  # an architecture without rotary positions
    for key, layers in (("rope.freq_base", "full_attention"), ("rope.freq_base_swa", "sliding_attention")):
        if (base := stated.get(key)) is None:
            continue
        inside = parameters.get(layers) if layers in parameters else parameters
        if not isinstance(base, int | float) or not 0 < base < 1e12 or not isinstance(inside, dict):
            raise _refused(kind, key, base, path)
        if key == "rope.freq_base_swa" and inside is parameters and not _close(base, stated.get("rope.freq_base")):
            raise _refused(kind, key, base, path)
        inside["rope_theta"] = float(base)
    turned, size = stated.get("rope.dimension_count"), _head_size(config)
    if type(turned) is int and size and "partial_rotary_factor" in parameters:
        parameters["partial_rotary_factor"] = turned / size


def _head_size(config: Any) -> int:
    size = getattr(config, "head_dim", None) or config.hidden_size // max(1, config.num_attention_heads)
    return size if isinstance(size, int) else 0


def _set_alike(config: Any, kind: str, key: str, value: Any, path: Path) -> None:
    for name in _ALIKE[key]:
        if not hasattr(config, name):
            continue
        used = getattr(config, name)
        if used == value or _close(used, value):
            return
        # A window of some layers only has other settings beside it, made when the config was.
        if key == "attention.shared_kv_layers" or ("sliding_window" in key and getattr(config, "layer_types", None)):
            break
        setattr(config, name, value)
        return
    if value is not None:
        raise _refused(kind, key, value, path)


def _close(one: Any, other: Any) -> bool:
    """Whether they are one number, of which the file has float32."""
    numbers = all(isinstance(value, int | float) for value in (one, other))
    return numbers and math.isclose(one, other, rel_tol=1e-6)


def check_rotary(model: Any, header: GgufInfo, path: Path) -> None:
    """Raises `UserError` if the model rotates another number of dimensions than the file says."""
    kind = str(header.settings.get("general.architecture"))
    turned = header.settings.get(f"{kind}.rope.dimension_count")
    frequencies = getattr(getattr(model.base_model, "rotary_emb", None), "inv_freq", None)
    if turned is not None and frequencies is not None and 2 * frequencies.numel() != turned:
        raise _refused(kind, "rope.dimension_count", turned, path)
