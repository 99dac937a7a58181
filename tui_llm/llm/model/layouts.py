"""The layouts of transformers beside GPT-2's that our GPT reads and writes: config.json and tensor names. No torch here.

Starcoder2 (LayerNorm, biases), Arcee (RMSNorm) and NanoChat (RMSNorm without weights, QK-norm, the embedding normalized)
have rotary positions, and three matrices where ours makes queries, keys and values with one. Which switches each holds is
in `switches.py`. A config that asks for anything else is left to transformers itself (`adapters/`).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from tui_llm.common.foreign_files import whole_number
from tui_llm.llm.model import switches
from tui_llm.llm.model.shape import GPTConfig

# Upper bounds for a config: far beyond any GPT-2, and small enough that products of them are harmless.
MOST_LAYERS, MOST_HEADS, MOST_WIDTH, MOST_ROWS = 10_000, 100_000, 1 << 20, 1 << 24
_QKV = "attention.qkv"
_BASE = "model."  # before the names of all tensors but the head's


@dataclass(frozen=True, slots=True)
class RotaryLayout:
    """One of the layouts. up, down: the MLP's modules; epsilon: the config's name of the norms' ε; defaults: what
    transformers takes for a key that config.json lacks; fixed: the keys that must have one value, ours."""

    model_type: str
    architecture: str
    up: str
    down: str
    epsilon: str
    defaults: dict[str, Any]
    fixed: dict[str, Any] = field(default_factory=dict)

    @property
    def modules(self) -> dict[str, str]:
        """Our name of a block's module → theirs."""
        return {"norm1": "input_layernorm", "attention.out": "self_attn.o_proj", "norm2": "post_attention_layernorm",
                "mlp.up": f"mlp.{self.up}", "mlp.down": f"mlp.{self.down}"}  # fmt: skip


_SHARED: dict[str, Any] = {"rope_theta": 10_000.0, "rope_scaling": None, "rope_parameters": None, "head_dim": None, "layer_types": None,
           "partial_rotary_factor": 1.0, "quantization_config": None}  # fmt: skip
LAYOUTS = {
    one.model_type: one
    for one in (
        RotaryLayout(
            "starcoder2", "Starcoder2ForCausalLM", "c_fc", "c_proj", "norm_epsilon",
            {**_SHARED, "hidden_act": "gelu_pytorch_tanh", "norm_epsilon": 1e-5, "tie_word_embeddings": True, "sliding_window": None,
             "max_position_embeddings": 4096, "num_key_value_heads": 2},
            {"use_bias": True},
        ),
        RotaryLayout(
            "arcee", "ArceeForCausalLM", "up_proj", "down_proj", "rms_norm_eps",
            {**_SHARED, "hidden_act": "relu2", "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "max_position_embeddings": 4096},
            {"attention_bias": False, "mlp_bias": False},
        ),
        RotaryLayout(
            "nanochat", "NanoChatForCausalLM", "fc1", "fc2", "rms_norm_eps",
            {**_SHARED, "hidden_act": "relu2", "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "final_logit_softcapping": 15.0,
             "max_position_embeddings": 2048},
            {"attention_bias": False},
        ),
    )
}  # fmt: skip
_ACTIVATIONS = {
    "relu2": (True, False),
    "gelu_pytorch_tanh": (False, False),
    "gelu_new": (False, False),
    "gelu": (False, True),
}


def tensor_names(name: str, model_type: str) -> tuple[str, ...]:
    """The tensors, without `model.`, that a parameter of `GPT` is stored as: three for queries, keys and values."""
    layout = LAYOUTS[model_type]
    if name in (top := {"tokens.weight": "embed_tokens.weight", "head.weight": "lm_head.weight"}):
        return (top[name],)
    if name.startswith("norm."):
        return (name,)
    _, layer, rest = name.split(".", 2)
    module, _, leaf = rest.rpartition(".")
    parts = [f"self_attn.{part}_proj" for part in "qkv"] if module == _QKV else [layout.modules[module]]
    return tuple(f"layers.{layer}.{part}.{leaf}" for part in parts)


def full_name(tensor: str) -> str:
    """A tensor's name in the file."""
    return tensor if tensor.startswith("lm_head") else _BASE + tensor


def split_rows(config: GPTConfig) -> tuple[int, int, int]:
    """Rows of queries, keys and values in our one matrix."""
    kv = config.key_heads * config.size
    return config.width, kv, kv


def to_json(config: GPTConfig, end_of_text: int | None, dtype: str) -> dict[str, Any]:
    """The content of config.json. Raises `UserError` if the layout does not hold all switches of `config`."""
    switches.layout_of(switches.names_of(config))
    layout = LAYOUTS[config.model_type]
    made = {
        "architectures": [layout.architecture],
        "model_type": layout.model_type,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_heads,
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "hidden_act": "relu2" if config.relu2 else "gelu" if config.exact_gelu else "gelu_pytorch_tanh",
        layout.epsilon: config.epsilon,
        "rope_theta": config.rope,  # for transformers 4; 5 reads the next
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope},
        "initializer_range": 0.02,
        "attention_dropout": config.dropout,
        "tie_word_embeddings": config.tied,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": None,
        "torch_dtype": dtype,
        **layout.fixed,
    }
    if layout.model_type == "starcoder2":
        dropout = {"residual_dropout": config.dropout, "embedding_dropout": config.dropout}
        return made | dropout | {"sliding_window": config.window or None}
    return made | ({"final_logit_softcapping": config.softcap or None} if layout.model_type == "nanochat" else {})


def from_json(raw: dict[str, Any]) -> GPTConfig:
    """The shape that a config.json of one of these layouts describes. Raises ValueError if our GPT is not that model."""
    layout = LAYOUTS[raw["model_type"]]
    found = {**layout.defaults, **layout.fixed, **raw}
    for key, value in layout.fixed.items():
        if found[key] is not value:
            raise ValueError(f"{key} is {shown(found[key])}, not {value!r}")
    activation = found["hidden_act"]
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise ValueError(f"its activation is {shown(activation)}")
    relu2, exact = _ACTIVATIONS[activation]
    heads, width = _size(found, "num_attention_heads", MOST_HEADS), _size(found, "hidden_size", MOST_WIDTH)
    if found.get("num_key_value_heads") is None:
        found["num_key_value_heads"] = heads
    kv_heads = _size(found, "num_key_value_heads", MOST_HEADS)
    tied = found["tie_word_embeddings"]
    if not isinstance(tied, bool):
        raise ValueError(f"tie_word_embeddings is {shown(tied)}, neither true nor false")
    window = found.get("sliding_window")
    config = GPTConfig(
        vocabulary=_size(found, "vocab_size", MOST_ROWS),
        context=_size(found, "max_position_embeddings", MOST_ROWS),
        layers=_size(found, "num_hidden_layers", MOST_LAYERS),
        heads=heads,
        width=width,
        inner=_size(found, "intermediate_size", MOST_ROWS),
        epsilon=_number(found, layout.epsilon, 0, 1),
        tied=tied,
        exact_gelu=exact,
        kv_heads=0 if kv_heads == heads else kv_heads,
        rope=_theta(found),
        rmsnorm=layout.model_type != "starcoder2",
        qk_norm=layout.model_type == "nanochat",
        relu2=relu2,
        softcap=0.0
        if found.get("final_logit_softcapping") is None
        else _number(found, "final_logit_softcapping", switches.LEAST[switches.SOFTCAP], 1e9),
        window=0 if window is None else _size(found, "sliding_window", 1 << 40),
    )
    _check_rest(found, config)
    config = dataclasses.replace(config, inner=0) if config.inner == 4 * width else config
    return dataclasses.replace(config, window=0) if config.window >= config.context else config


def _check_rest(found: dict[str, Any], config: GPTConfig) -> None:
    if found["head_dim"] not in (None, config.size):
        raise ValueError(f"heads of width {shown(found['head_dim'])} are not {config.width} ÷ {config.heads}")
    if found["quantization_config"] is not None or found["partial_rotary_factor"] != 1:
        raise ValueError("it is quantized, or a part of each head is rotated")
    kinds = found["layer_types"]
    if kinds is not None and (not isinstance(kinds, list) or set(map(str, kinds)) != {"full_attention"}):
        raise ValueError("its layers differ")


def _theta(found: dict[str, Any]) -> float:
    """The base of the rotary frequencies. Raises ValueError for frequencies that are scaled."""
    rope = found["rope_parameters"]
    if rope is None:
        if found["rope_scaling"] is not None:
            raise ValueError("its rotary positions are scaled")
        rope = {"rope_theta": found["rope_theta"]}
    if (
        not isinstance(rope, dict)
        or rope.get("rope_type", "default") != "default"
        or rope.get("partial_rotary_factor", 1) != 1
    ):
        raise ValueError("its rotary positions are scaled")
    return _number({"rope_theta": found["rope_theta"], **rope}, "rope_theta", switches.LEAST[switches.ROPE], 1e12)


def _size(found: dict[str, Any], name: str, most: int) -> int:
    size = whole_number(found.get(name), 1, most)
    if size is None:
        raise ValueError(f"{name} is {shown(found.get(name))}, not an integer from 1 to {most:,}")
    return size


def _number(found: dict[str, Any], name: str, low: float, high: float) -> float:
    value = found[name]
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not low <= value <= high
        or not math.isfinite(value)
    ):
        raise ValueError(f"{name} is {shown(value)}, not a number from {low:g} to {high:g}")
    return float(value)


def shown(value: Any) -> str:
    """`repr(value)` cut to one line; also for integers with more digits than Python converts to a string."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:60] + "…"
