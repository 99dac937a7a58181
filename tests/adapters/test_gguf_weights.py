"""GGUF files' weights: what transformers leaves out is read here, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import foreign
import gguf
import numpy as np
import pytest
import torch
import transformers
from transformers import modeling_gguf_pytorch_utils

from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16, "rope_theta": 10000.0}  # fmt: skip


def test_the_rotary_factors_of_llama_3_are_read(tmp_path: Path) -> None:
    """llama.cpp's converter stores Llama 3's scaling of positions as `rope_freqs.weight`: the frequencies' divisors."""
    plain = foreign.make("llama", tmp_path / "llama")
    scaled = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**{**plain.config.to_dict(), "rope_parameters": LLAMA3})
    )
    scaled.load_state_dict(plain.state_dict())
    factors = (plain.model.rotary_emb.inv_freq / scaled.model.rotary_emb.inv_freq).numpy()
    assert factors.max() > 7
    path = tmp_path / "tiny.gguf"
    foreign.write_gguf(plain, foreign.byte_level(), path, more={"rope_freqs.weight": factors.astype(np.float32)})
    engine = PipelineEngine("cpu")
    weights = engine.open(str(path))
    reading = engine.read(Request(prompt="The cat sat on the mat and the dog", top=weights.vocabulary))
    wanted = foreign.full_logits(scaled.eval(), list(reading.prompt_ids))[-1]
    unscaled = foreign.full_logits(plain, list(reading.prompt_ids))[-1]
    assert float((wanted - unscaled).abs().max()) > 1e-2
    assert reading.distribution is not None
    for row in reading.distribution.candidates:
        assert row.logit == pytest.approx(float(wanted[row.id]), abs=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rope_freqs.weight": np.ones(3, np.float32)}, "does not fit"),
        ({"rope_freqs.weight": np.zeros(4, np.float32)}, "not positive"),
        ({"blk.1.attn_q.bias": np.ones(32, np.float32)}, r"'blk\.1\.attn_q\.bias'"),
        ({"llama.rope.scaling.type": "yarn"}, r"llama\.rope\.scaling"),
        ({"llama.attention.next_years_rule": "x"}, r"llama\.attention\.next_years_rule x"),
    ],
    ids=["factors of another size", "a zero factor", "a bias", "yarn", "a key that is not known"],
)
def test_what_is_not_read_is_refused(more: dict[str, np.ndarray | str], message: str, tmp_path: Path) -> None:
    model = foreign.make("llama", tmp_path / "llama")
    path = tmp_path / "tiny.gguf"
    foreign.write_gguf(model, foreign.byte_level(), path, more=more)
    with pytest.raises(UserError, match=message) as caught:
        PipelineEngine("cpu").open(str(path))
    assert "\n" not in str(caught.value)


def test_no_scaling_opens(tmp_path: Path) -> None:
    model = foreign.make("llama", tmp_path / "llama")
    foreign.write_gguf(model, foreign.byte_level(), tmp_path / "a.gguf", more={"llama.rope.scaling.type": "none"})
    assert PipelineEngine("cpu").open(str(tmp_path / "a.gguf")).kind == "llama"


COMMON = {"context_length": 48, "embedding_length": 32, "block_count": 2, "feed_forward_length": 48,
          "attention.head_count": 4, "attention.head_count_kv": 2}  # fmt: skip
UNREAD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # what transformers' class gets, and the file beside COMMON
    "starcoder2": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 250.0}, "sliding_window": 4},
        {"rope.freq_base": 250.0, "attention.layer_norm_epsilon": 1e-5, "attention.sliding_window": 4},
    ),
    "stablelm": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 250.0, "partial_rotary_factor": 0.5}},
        {"rope.freq_base": 250.0, "attention.layer_norm_epsilon": 1e-5, "rope.dimension_count": 4},
    ),
    "phi3": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 250.0, "partial_rotary_factor": 0.5},
         "sliding_window": 4},
        {"rope.freq_base": 250.0, "attention.layer_norm_rms_epsilon": 1e-5, "rope.dimension_count": 4,
         "attention.sliding_window": 4},
    ),
}  # fmt: skip


def write_as(kind: str, model: Any, path: Path, settings: dict[str, Any]) -> None:
    """An architecture whose tensors llama.cpp's converter leaves as they are, with `settings` beside `COMMON`."""
    vocabulary = foreign.byte_level()
    written = json.loads(vocabulary.to_str())["model"]["merges"]
    ids = vocabulary.get_vocab(with_added_tokens=True)
    writer = gguf.GGUFWriter(path, kind)
    for key, value in (COMMON | settings | {"vocab_size": model.config.vocab_size}).items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(f"{kind}.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_pad_token_id(0)
    tokens = sorted(ids, key=lambda token: ids[token])
    writer.add_token_list([*tokens, *(f"[PAD{at}]" for at in range(len(tokens), model.config.vocab_size))])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in written])
    state = model.state_dict()
    names = modeling_gguf_pytorch_utils.get_gguf_hf_weights_map(
        model, modeling_gguf_pytorch_utils.TensorProcessor(config={})
    )
    for name, theirs in names.items():
        if theirs in state and not (name == "output.weight" and model.config.tie_word_embeddings):
            writer.add_tensor(name, state[theirs].float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", UNREAD)
def test_the_positions_and_windows_that_the_table_of_transformers_lacks(kind: str, tmp_path: Path) -> None:
    """Against transformers' own class with the same rotary base, share of rotated dimensions and window."""
    more, settings = UNREAD[kind]
    config = transformers.AutoConfig.for_model(
        kind, **foreign.SHAPE, num_key_value_heads=2, vocab_size=340, pad_token_id=None, bos_token_id=0, eos_token_id=1,
        **more,
    )  # fmt: skip
    torch.manual_seed(4)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    path = tmp_path / "tiny.gguf"
    write_as(kind, model, path, settings)
    engine = PipelineEngine("cpu")
    size = engine.open(str(path)).vocabulary
    reading = engine.read(Request(prompt="The cat sat on the mat and the dog looked at it", top=size))
    wanted = foreign.full_logits(model, list(reading.prompt_ids))[-1]
    assert reading.distribution is not None
    for row in reading.distribution.candidates:
        assert row.logit == pytest.approx(float(wanted[row.id]), abs=1e-4)
